"""From a model's ONNX weights to int8 ones that were measured: calibrate, make, set against the float ones, keep or refuse.

Knows no format: how weights are made is a backend's business, what scores them an engine's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from farm.contracts import ModelCard
from farm.errors import BadInput
from trainer.evaluate import Evaluation, evaluate
from trainer.manifest import CropSet
from trainer.quantize import dpu_backend, nncf_backend, ort_backend
from trainer.quantize.made import Made
from trainer.quantize.report import Report, compared
from trainer.scoring import Scorer, open_scorer
from workers.engines.weights import QUANTIZED_FROM, check_weights

FEWEST_CROPS = 20


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to make int8 weights."""

    make: Callable[[Path, ModelCard, NDArray[np.uint8]], Made]
    #: scores weights, given their card's path and a number of threads
    open: Callable[[Path, int], Scorer]
    #: added to the file's and the model's name
    suffix: str


BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {
        "nncf": Backend(nncf_backend.make, lambda card, threads: open_scorer(str(card), "openvino", threads), ""),
        "ort": Backend(ort_backend.make, lambda card, threads: open_scorer(str(card), "onnx", threads), "-ort"),
        "dpu": Backend(dpu_backend.make, dpu_backend.open_scorer, "-dpu"),
    }
)


@dataclass(frozen=True, slots=True)
class Material:
    """What is calibrated on, and what is measured on."""

    #: (N, S, S, 3) uint8
    calibration: NDArray[np.uint8]
    held: CropSet
    #: rows of `held`
    rows: NDArray[np.intp]


def material(held: CropSet, rows: NDArray[np.intp], calibration: CropSet | None, count: int) -> Material:
    """Choose up to `count` crops to calibrate on, evenly: from `calibration`, or from every second group of people of `held`.

    The other groups are measured on. Raises BadInput for fewer than 20 crops.
    """
    if calibration is None:
        groups = held.column("group")[rows].astype(str)
        groups = np.where(groups == "", held.column("original")[rows].astype(str), groups)
        second = np.isin(groups, np.unique(groups)[::2])
        source, wanted, rows = held, rows[second], rows[~second]
    else:
        source, wanted = calibration, np.arange(len(calibration))
    chosen = wanted[np.unique(np.linspace(0, len(wanted) - 1, min(len(wanted), count)).astype(np.intp))]
    if len(chosen) < FEWEST_CROPS:
        raise BadInput(
            f"{len(chosen)} crops are too few to quantize with; give {FEWEST_CROPS} or more faces of the kind to be scanned"
        )
    return Material(np.stack([source.crop(int(row)) for row in chosen]), held, rows)


def quantize(
    card_path: Path, given: Material, backend: str, *, allow_drop: bool = False, threads: int = 1
) -> tuple[Path, Report]:
    """Write int8 weights and their card into `int8/` beside the model's; the card's path and what was measured.

    Raises EngineMissing, BadInput for weights that are int8 already, and BadModel where a figure falls by more than a point; nothing
    is written then.
    """
    chosen = BACKENDS[backend]
    weights, card = float_weights(card_path)
    made = chosen.make(weights, card, given.calibration)
    folder, stem = card_path.parent / "int8", weights.stem + chosen.suffix
    full = evaluated(open_scorer(str(card_path), "onnx", threads), given)
    with tempfile.TemporaryDirectory() as trial:
        trial_card = _write(Path(trial), stem, made.content, int8_card(card, made, stem + made.suffix, "", given))
        report = compared(full, evaluated(chosen.open(trial_card, threads), given), card)
    report.check(card.name, allow_drop=allow_drop)
    kept = int8_card(card, made, stem + made.suffix, chosen.suffix, given, report)
    return _write(folder, stem, made.content, kept), report


def float_weights(card_path: Path) -> tuple[Path, ModelCard]:
    """The weights that a card describes, and the card. Raises BadModel, and BadInput for int8 ones."""
    card = ModelCard.load(card_path)
    if QUANTIZED_FROM in card.training:
        raise BadInput(f"{card_path} is the card of int8 weights: name that of the float ones they were made from")
    weights = card_path.with_name(card.weights)
    check_weights(weights, card)
    return weights, card


def int8_card(
    card: ModelCard, made: Made, weights: str, suffix: str, given: Material, report: Report | None = None
) -> ModelCard:
    """The card of int8 weights made from those of `card`; what was measured of the float ones stays in it, beside the report."""
    crops = len(given.calibration)
    told = {} if report is None else report.to_values() | {"set": given.held.folder.name, "calibration_crops": crops}
    return dataclasses.replace(
        card,
        name=f"{card.name}-int8{suffix}",
        weights=weights,
        sha256=hashlib.sha256(made.content).hexdigest(),
        training={
            **card.training,
            QUANTIZED_FROM: card.sha256,
            "quantized_with": made.made_with,
            "calibration_crops": crops,
        },
        metrics={**card.metrics, "int8_against_float": told},
        dpu=dict(made.dpu),
        notes=(
            *card.notes,
            f"int8 weights of {card.name} {card.version}; threshold and calibration are those of the fp32 weights",
        ),
    )


def _write(folder: Path, stem: str, content: bytes, card: ModelCard) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / card.weights).write_bytes(content)
    path = folder / f"{stem}.json"
    path.write_text(card.to_json())
    return path


def evaluated(scorer: Scorer, given: Material) -> Evaluation:
    """Score the held-out crops and close the scorer."""
    try:
        return evaluate(given.held, given.rows, scorer)
    finally:
        scorer.close()
