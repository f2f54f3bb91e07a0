"""Weights out of the trainer: an ONNX graph that says what torch says, and the model card beside it.

Knows no training data; the card's words about data and recipe are handed in.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
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
TOLERANCE = 1e-4
"""Largest absolute difference allowed between a logit from torch and from the exported graph, relative above 1."""
FEATURES = tuple(f"feature_{level}" for level in range(LEVELS + 1))
"""Tensors that the encoder part hands to the decoder part, finest first: (B, W << level, S >> level, S >> level)."""
REAL_CROPS = 32
"""Crops of a prepared set that graphs are compared on, beside random ones."""


class _Whole(nn.Module):
    """The network as it is shipped: full-side mask, nothing of the training left."""

    def __init__(self, model: UYNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        logits = self.model(image)
        return logits.class_logit, logits.mask_logit


class _Encoder(_Whole):
    """Encoder and class head: 35 % of the work."""

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        features = self.model.encode(image)
        return self.model.classify(features[-1]), *features


class _Decoder(_Whole):
    """The mask, from what the encoder handed over."""

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        return (self.model.mask_head(self.model.decode(list(features), LEVELS)),)


def export_onnx(model: UYNet, path: Path, crops: Crops | None = None) -> float:
    """Write the whole network as ONNX with a free batch size; returns the largest difference to torch that was seen.

    `crops` (B, S, S, 3) uint8 are compared on beside random ones. Raises BadModel if the graph disagrees with torch beyond TOLERANCE.
    """
    model = _plain(model)
    images = _images(crops)
    return _write(_Whole(model), images, ["image"], ["class_logit", "mask_logit"], path)


def export_parts(model: UYNet, path: Path, crops: Crops | None = None) -> tuple[Path, Path, float]:
    """Write NAME.encoder.onnx (image -> class_logit and FEATURES) and NAME.decoder.onnx (FEATURES -> mask_logit) beside NAME.onnx.

    So a runtime can leave out the decoder, 65 % of the work, for crops that need no mask. Returns both paths and the largest
    difference to torch. Raises BadModel as `export_onnx` does.
    """
    model = _plain(model)
    images = _images(crops)
    encoder, decoder = path.with_suffix(".encoder.onnx"), path.with_suffix(".decoder.onnx")
    worst = _write(_Encoder(model), images, ["image"], ["class_logit", *FEATURES], encoder)
    with torch.no_grad():
        features = [tuple(model.encode(image)) for (image,) in images]
    return encoder, decoder, max(worst, _write(_Decoder(model), features, list(FEATURES), ["mask_logit"], decoder))


def _plain(model: UYNet) -> UYNet:
    return model.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload, no-any-return]


def _images(crops: Crops | None) -> list[tuple[Tensor, ...]]:
    """Inputs to compare on: random pictures in batches of 1 and 3, and the given crops."""
    rng = np.random.default_rng(0)
    shape = (CROP_SIDE_PX, CROP_SIDE_PX, 3)
    batches = [rng.integers(0, 256, (1, *shape), np.uint8), rng.integers(0, 256, (3, *shape), np.uint8)]
    if crops is not None:
        batches += [crops[start : start + 8] for start in range(0, min(len(crops), REAL_CROPS), 8)]
    return [(to_input(torch.from_numpy(batch).permute(0, 3, 1, 2)).contiguous(),) for batch in batches]


def _write(part: nn.Module, inputs: list[tuple[Tensor, ...]], takes: list[str], gives: list[str], path: Path) -> float:
    """Export one module under its final name if it says what torch says on every input."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    batch = torch.export.Dim("batch", min=1)
    example = tuple(x.repeat(2, 1, 1, 1)[:2].contiguous() for x in inputs[0])
    shapes: Any = {"image": {0: batch}} if takes == ["image"] else (tuple({0: batch} for _ in takes),)
    with _quietly():
        program = torch.onnx.export(
            part,
            example,
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            input_names=takes,
            output_names=gives,
            dynamic_shapes=shapes,
        )
    assert program is not None
    program.save(str(draft), external_data=False)
    _forget_where(draft)
    difference = difference_to_torch(part, draft, inputs, takes, gives)
    accept(draft, path, difference)
    return difference


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


def _forget_where(path: Path) -> None:
    """Take out of a graph what the exporter noted of the machine that made it: stack traces with its folders."""
    import onnx

    graph = onnx.load(path)
    del graph.metadata_props[:]
    del graph.graph.metadata_props[:]
    for part in (*graph.graph.node, *graph.graph.value_info, *graph.graph.input, *graph.graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    onnx.save(graph, path)


def accept(part: Path, path: Path, difference: float) -> None:
    """Give a freshly written graph its name, or delete it: it must agree with torch. Raises BadModel."""
    if difference > TOLERANCE:
        part.unlink()
        raise BadModel(f"{path.name} was not written: it differs from torch by {difference:.2e}")
    part.replace(path)


def difference_to_torch(
    part: nn.Module, path: Path, inputs: list[tuple[Tensor, ...]], takes: list[str], gives: list[str]
) -> float:
    """Largest |onnx - torch| / max(1, |torch|) over all outputs and inputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for given in inputs:
        with torch.no_grad():
            expected = part(*given)
        said = session.run(gives, {name: x.numpy() for name, x in zip(takes, given, strict=True)})
        for ours, theirs in zip(said, expected, strict=True):
            want = theirs.numpy()
            worst = max(worst, float((np.abs(ours - want) / np.maximum(1, np.abs(want))).max()))
    return worst


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
