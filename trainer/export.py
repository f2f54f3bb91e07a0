"""Weights out of the trainer: an ONNX graph that says what torch says, and the model card beside it.

Knows no training data; the card's words about data and recipe are handed in.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor, nn

from farm.contracts import CROP_SIDE_PX, ModelCard
from farm.errors import BadModel
from trainer.dataset import INPUT_OFFSET, INPUT_SCALE
from trainer.evaluate import MASK_THRESHOLD, Scores
from trainer.model import UYNet
from trainer.prepare import CROP_MARGIN

OPSET = 18
TOLERANCE = 1e-4
"""Largest absolute difference allowed between a logit from torch and from the exported graph, relative above 1."""
LARGEST_BYTES = 16 * 1024 * 1024
VIDEO_MARGIN = 1.0
"""Logits added above the strictest quantile: portraits are not video, and a change of scale alone moved logits by 1 to 2."""


class _Shipped(nn.Module):
    """The network as it is shipped: full-side mask, nothing of the training left."""

    def __init__(self, model: UYNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model(image)
        return logits.class_logit, logits.mask_logit


def export_onnx(model: UYNet, path: Path) -> float:
    """Write `model` as ONNX with a free batch size; returns the largest difference to torch that was seen.

    Raises BadModel if the graph disagrees with torch beyond TOLERANCE or the file is larger than LARGEST_BYTES.
    """
    shipped = _Shipped(model.eval().to(memory_format=torch.contiguous_format))  # type: ignore[call-overload]
    example = (torch.zeros(2, 3, CROP_SIDE_PX, CROP_SIDE_PX),)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    quiet = logging.getLogger("torch.onnx")
    before = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # The exporter warns about torch's own internals; nothing in it is about this graph.
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                shipped, example, dynamo=True, opset_version=OPSET, verbose=False, input_names=["image"],
                output_names=["class_logit", "mask_logit"], dynamic_shapes={"image": {0: torch.export.Dim("batch", min=1)}},
            )  # fmt: skip
    finally:
        quiet.setLevel(before)
    assert program is not None
    program.save(str(part), external_data=False)
    _forget_where(part)
    difference = difference_to_torch(shipped, part)
    accept(part, path, difference)
    return difference


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
    """Give a freshly written graph its name, or delete it: it must agree with torch and be no larger than allowed. BadModel."""
    size = part.stat().st_size
    if difference > TOLERANCE or size > LARGEST_BYTES:
        part.unlink()
        raise BadModel(f"{path.name} was not written: it differs from torch by {difference:.2e} and has {size} bytes")
    part.replace(path)


def difference_to_torch(shipped: nn.Module, path: Path) -> float:
    """Largest |onnx - torch| / max(1, |torch|) over both outputs, on random crops in batches of 1 and 3."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    worst = 0.0
    for batch in (1, 3):
        crops = rng.integers(0, 256, (batch, 3, CROP_SIDE_PX, CROP_SIDE_PX)).astype(np.float32)
        image = crops * np.float32(INPUT_SCALE) + np.float32(INPUT_OFFSET)
        with torch.no_grad():
            expected = shipped(torch.from_numpy(image))
        for ours, theirs in zip(session.run(["class_logit", "mask_logit"], {"image": image}), expected, strict=True):
            want = theirs.numpy()
            worst = max(worst, float((np.abs(ours - want) / np.maximum(1, np.abs(want))).max()))
    return worst


@dataclass(frozen=True, slots=True)
class Calibration:
    """From logits to words; all of it fitted on held-out portraits and fakes made of them."""

    temperature: float
    bias: float
    threshold: float
    #: measured with the threshold above
    false_positive_rate: float
    real_below: float
    #: the sample sizes and rates behind the numbers
    figures: dict[str, Any]


def calibrate(ordinary: Scores, hard: Scores) -> Calibration:
    """Fit temperature and bias (logistic regression), then place the two bounds.

    FAKE starts above the 99.5 % quantile of the real faces of whichever set is harder, and a margin above it, for video is not
    a photograph. REAL ends below the 2 % quantile of the fakes of both sets. Between them the farm abstains.
    """
    real, fake = np.concatenate([ordinary.real, hard.real]), np.concatenate([ordinary.fake, hard.fake])
    temperature, bias = fit_sigmoid(real, fake)

    def probability(logit: float) -> float:
        return float(1 / (1 + np.exp(-(logit - bias) / temperature)))

    upper = max(float(np.quantile(scores.real, 0.995)) for scores in (ordinary, hard)) + VIDEO_MARGIN
    lower = min(float(np.quantile(scores.fake, 0.02)) for scores in (ordinary, hard))
    threshold = round(probability(upper), 4)
    figures = {
        "reals": len(real),
        "reals_above_threshold": int((real >= upper).sum()),
        "reals_called_real": round(float((real <= lower).mean()), 4),
        "fakes_called_fake": round(float((fake >= upper).mean()), 4),
        "fakes_called_real": round(float((fake <= lower).mean()), 4),
    }
    # A rate of 0 among n says no more than "below 3 / n" (the rule of three): state that bound, not a boast.
    rate = max(figures["reals_above_threshold"], 3) / len(real)
    return Calibration(
        round(temperature, 4),
        round(bias, 4),
        threshold,
        round(rate, 5),
        min(round(probability(lower), 4), threshold),
        figures,
    )


def fit_sigmoid(real: NDArray[np.float64], fake: NDArray[np.float64]) -> tuple[float, float]:
    """(temperature, bias) of p = sigmoid((logit - bias) / temperature) with the least cross-entropy (Platt, 1999)."""

    def cost(x: NDArray[np.float64]) -> float:
        a, b = np.exp(x[0]), x[1]
        return float(np.logaddexp(0, a * (real - b)).mean() + np.logaddexp(0, -a * (fake - b)).mean())

    best = minimize(cost, np.array([0.0, 0.0]), method="Nelder-Mead")
    return float(np.exp(-best.x[0])), float(best.x[1])


def write_card(
    weights: Path, width: int, version: str, calibration: Calibration, training: dict[str, Any], metrics: dict[str, Any]
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
        demonstration=True,
        training=training,
        metrics=metrics | {"calibration": calibration.figures},
        notes=NOTES,
    )
    weights.with_suffix(".json").write_text(card.to_json())
    return card


NOTES = (
    (
        "A demonstration: trained on self-made fakes of portrait photographs only, it has not learnt real neural face swaps, "
        "and its AUC on real swaps, stated in the metrics, may be no better than chance."
    ),
    "Never use its word to accuse anybody, nor to clear a video.",
    (
        "Temperature, bias, threshold and real_below come from held-out portraits and fakes made of them; the real/fake "
        "video pairs were only looked at, and chose nothing."
    ),
    "The false-positive rate holds for such portraits; modern video footage will give more false alarms.",
    (
        "Persons: identity is known from bioguide and ICPSR numbers where a public list has them, and identical photographs "
        "are joined; an unknown repeat of a person across the split cannot be ruled out."
    ),
)
