"""Weights out of the trainer: an ONNX graph that says what torch says, and the model card beside it.

Knows no training data; the card's words about data and recipe are handed in.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from farm.contracts import CROP_SIDE_PX, ModelCard
from farm.errors import BadModel
from trainer.calibrate import Calibration
from trainer.dataset import INPUT_OFFSET, INPUT_SCALE, to_input
from trainer.evaluate import MASK_THRESHOLD
from trainer.manifest import CROP_MARGIN
from trainer.model import LEVELS, UYNet

Crops = NDArray[np.uint8]

OPSET = 18
"""Of every graph written here; ONNX Runtime, OpenVINO and the vendor's compiler read it."""
TOLERANCE = 1e-4
"""Largest absolute difference allowed between a logit from torch and from the exported graph, relative above 1."""
FEATURES = tuple(f"feature_{level}" for level in range(LEVELS + 1))
"""Tensors that the encoder part hands to the decoder part, finest first: (B, W << level, S >> level, S >> level)."""
REAL_CROPS = 32
"""Crops of a prepared set that graphs are compared on, beside random ones."""


class _Shipped(nn.Module):
    """The network as it is shipped: full-side mask, nothing of the training left, and what its encoder hands to its decoder."""

    def __init__(self, model: UYNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        features = self.model.encode(image)
        return self.model.classify(features[-1]), self.model.mask_head(self.model.decode(features, LEVELS)), *features


@dataclass(frozen=True, slots=True)
class Exported:
    """Three graphs of one network, and the largest difference to torch that was seen in the whole one and in the parts."""

    #: image -> class_logit and mask_logit
    whole: Path
    #: image -> class_logit and FEATURES: 35 % of the work
    encoder: Path
    #: FEATURES -> mask_logit
    decoder: Path
    difference: float
    parts_difference: float


def export_onnx(model: UYNet, path: Path, crops: Crops | None = None) -> Exported:
    """Write NAME.onnx, and beside it NAME.encoder.onnx and NAME.decoder.onnx, so that a runtime can leave out the decoder.

    All have a free batch size. They are cut out of one trace, so the parts are the whole. `crops` (B, S, S, 3) uint8 are compared on
    beside random ones. Raises BadModel, and writes none, if a graph disagrees with torch beyond TOLERANCE.
    """
    shipped = _Shipped(model.eval().to(memory_format=torch.contiguous_format)).eval()  # type: ignore[call-overload]
    ways = {
        path: (["image"], ["class_logit", "mask_logit"]),
        path.with_suffix(".encoder.onnx"): (["image"], ["class_logit", *FEATURES]),
        path.with_suffix(".decoder.onnx"): (list(FEATURES), ["mask_logit"]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    drafts = {name: name.with_name(name.name + ".part") for name in ways}
    _cut(_traced(shipped), {drafts[name]: ends for name, ends in ways.items()})
    seen = _seen(shipped, _images(crops))
    found = [difference_to_torch(drafts[name], seen, *ends) for name, ends in ways.items()]
    accept(drafts, found)
    whole, encoder, decoder = ways
    return Exported(whole, encoder, decoder, found[0], max(found[1:]))


def _images(crops: Crops | None) -> list[Tensor]:
    """Inputs to compare on: random pictures in batches of 1 and 3, and the given crops."""
    rng = np.random.default_rng(0)
    shape = (CROP_SIDE_PX, CROP_SIDE_PX, 3)
    batches = [rng.integers(0, 256, (1, *shape), np.uint8), rng.integers(0, 256, (3, *shape), np.uint8)]
    if crops is not None:
        batches += [crops[start : start + 8] for start in range(0, min(len(crops), REAL_CROPS), 8)]
    return [to_input(torch.from_numpy(batch).permute(0, 3, 1, 2)).contiguous() for batch in batches]


def _traced(shipped: _Shipped) -> Any:
    """The ONNX model of everything, with a free batch size and no trace of the machine that made it."""
    example = torch.zeros(2, 3, CROP_SIDE_PX, CROP_SIDE_PX)
    with _quietly():
        program = torch.onnx.export(
            shipped,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            input_names=["image"],
            output_names=["class_logit", "mask_logit", *FEATURES],
            dynamic_shapes={"image": {0: torch.export.Dim("batch", min=1)}},
        )
    assert program is not None
    return _forget_where(program.model_proto)


def _cut(model: Any, parts: Mapping[Path, tuple[list[str], list[str]]]) -> None:
    """Write the part of a graph between the tensors of either end, for every path."""
    import onnx

    cutter = onnx.utils.Extractor(model)
    for path, (takes, gives) in parts.items():
        onnx.save(cutter.extract_model(takes, gives), path)


@torch.no_grad()
def _seen(shipped: _Shipped, images: list[Tensor]) -> list[dict[str, NDArray[np.float32]]]:
    """Every tensor at an end of a graph as torch has it, by name, for every input."""
    names = ["class_logit", "mask_logit", *FEATURES]
    said = [dict(zip(names, (x.numpy() for x in shipped(image)), strict=True)) for image in images]
    return [one | {"image": image.numpy()} for one, image in zip(said, images, strict=True)]


@contextmanager
def _quietly() -> Iterator[None]:
    """The exporter logs and warns about torch's own internals; nothing in it is about these graphs."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _forget_where(model: Any) -> Any:
    """Take out of a graph what the exporter noted of the machine that made it: stack traces with its folders."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    return model


def accept(drafts: Mapping[Path, Path], differences: Sequence[float]) -> None:
    """Give freshly written graphs their names, or delete them all: every one must agree with torch. Raises BadModel."""
    worst = int(np.argmax(differences))  # of nan, that
    # Written so that no number at all is refused as well.
    if not differences[worst] <= TOLERANCE:
        for draft in drafts.values():
            draft.unlink()
        raise BadModel(f"{list(drafts)[worst].name} was not written: it differs from torch by {differences[worst]:.2e}")
    for path, draft in drafts.items():
        draft.replace(path)


def difference_to_torch(
    path: Path, seen: Sequence[Mapping[str, NDArray[np.float32]]], takes: list[str], gives: list[str]
) -> float:
    """Largest |onnx - torch| / max(1, |torch|) over all outputs and inputs; nan where either gives no number."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = [0.0]
    for tensors in seen:
        for name, ours in zip(gives, session.run(gives, {name: tensors[name] for name in takes}), strict=True):
            want = tensors[name]
            worst.append(float((np.abs(ours - want) / np.maximum(1, np.abs(want))).max()))
    return float(np.max(worst))


def write_card(
    weights: Path,
    width: int,
    version: str,
    calibration: Calibration,
    training: dict[str, Any],
    metrics: dict[str, Any],
    notes: tuple[str, ...],
    *,
    demonstration: bool,
) -> ModelCard:
    """Write the card beside exported weights and return it."""
    card = ModelCard(
        name=weights.stem,
        version=version,
        weights=weights.name,
        sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        width=width,
        input_name="image",
        class_output="class_logit",
        mask_output="mask_logit",
        input_scale=INPUT_SCALE,
        input_offset=INPUT_OFFSET,
        logit_polarity="fake",
        crop_margin=CROP_MARGIN,
        mask_threshold=MASK_THRESHOLD,
        temperature=calibration.temperature,
        bias=calibration.bias,
        threshold=calibration.threshold,
        false_positive_rate=calibration.false_positive_rate,
        real_below=calibration.real_below,
        demonstration=demonstration,
        training=training,
        metrics=metrics | {"calibration": calibration.figures},
        notes=notes,
    )
    weights.with_suffix(".json").write_text(card.to_json())
    return card
