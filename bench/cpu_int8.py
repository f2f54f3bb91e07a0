"""int8 on a processor against float: how much faster, and what it costs in AUC and mask IoU, on validation crops.

    trainer prepare portraits PORTRAITS --out SET && trainer split SET && trainer make-fakes SET --out VALIDATION
    python -m bench.cpu_int8 --manifest VALIDATION [--crops 600] [--card CARD.json]

Speed: one thread, crops one by one, rounds of every engine in turn, CPU-seconds; the float side is the engine `onnx`. The int8
side is the engine `openvino` with the weights that `trainer quantize` made (shipped ones included), and `onnx` with weights that
`trainer quantize --backend ort` makes here, calibrated on every second group of people of VALIDATION; all are measured on the
other groups. Ends with one line of JSON; its `speedup`, `auc_drop`, `iou_drop` are those of the engine `openvino`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from farm.contracts import ModelCard
from trainer.evaluate import Evaluation, evaluate
from trainer.manifest import CropSet
from trainer.quantize import int8
from trainer.quantize.report import compared
from trainer.scoring import Scorer, open_scorer
from workers.engines.weights import SHIPPED

ROUNDS, CROPS_PER_ROUND = 12, 8
CALIBRATION_CROPS = 300


def cpu_seconds(scorers: dict[str, Scorer], crops: NDArray[np.uint8]) -> dict[str, list[float]]:
    """CPU-seconds per crop of every engine, round by round in turn; a round before the first is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in scorers}
    for number in range(ROUNDS + 1):
        for name, scorer in scorers.items():
            started = time.process_time()
            for crop in crops:
                scorer.score(crop[None])
            if number:
                seconds[name].append((time.process_time() - started) / len(crops))
    return seconds


def evaluated(scorer: Scorer, given: int8.Material, most: int) -> Evaluation:
    rows = given.rows[np.unique(np.linspace(0, len(given.rows) - 1, min(most, len(given.rows))).astype(np.intp))]
    return evaluate(given.held, rows, scorer)


def with_ort_weights(card_path: Path, folder: Path, given: int8.Material) -> Path:
    """The card of freshly made ort weights of the model, in a folder that goes away."""
    card = ModelCard.load(card_path)
    for name in (card_path.name, card.weights):
        shutil.copy(card_path.with_name(name), folder / name)
    small = int8.Material(given.calibration, given.held, given.rows[:: max(1, len(given.rows) // 60)])
    return int8.quantize(folder / card_path.name, small, "ort", allow_drop=True)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--manifest", type=Path, required=True, help="prepared set of twins with masks")
    parser.add_argument("--card", type=Path, default=SHIPPED / "uynet-w16.json")
    parser.add_argument("--crops", type=int, default=600, help="crops to measure AUC and IoU on, at most")
    options = parser.parse_args()
    held, card = CropSet.open(options.manifest), ModelCard.load(options.card)
    given = int8.material(held, np.arange(len(held)), None, CALIBRATION_CROPS)
    with tempfile.TemporaryDirectory() as folder:
        ort_card = with_ort_weights(options.card, Path(folder), given)
        scorers = {
            "onnx fp32": open_scorer(str(options.card), "onnx"),
            "openvino int8": open_scorer(str(options.card), "openvino"),
            "onnx int8": open_scorer(str(ort_card), "onnx"),
        }
        seconds = cpu_seconds(scorers, given.calibration[:CROPS_PER_ROUND])
        found = {name: evaluated(scorer, given, options.crops) for name, scorer in scorers.items()}
        for scorer in scorers.values():
            scorer.close()
    figures = {name: told(name, seconds, found, card) for name in scorers if name != "onnx fp32"}
    print(json.dumps({**figures["openvino int8"], "engines": figures}))


def told(name: str, seconds: dict[str, list[float]], found: dict[str, Evaluation], card: ModelCard) -> dict[str, Any]:
    """Figures of one int8 engine against the float one; printed on the way."""
    report = compared(found["onnx fp32"], found[name], card)
    ratios = np.array(seconds["onnx fp32"]) / np.array(seconds[name])
    full_ms, int8_ms = (1000 * float(np.median(seconds[key])) for key in ("onnx fp32", name))
    print(
        f"{name}: {int8_ms:.1f} CPU-ms per crop against {full_ms:.1f}, {np.median(ratios):.2f} times faster "
        f"({ratios.min():.2f} to {ratios.max():.2f}); AUC {report.full['auc']:.4f} -> {report.quantized['auc']:.4f}, "
        f"IoU {report.full['iou']:.4f} -> {report.quantized['iou']:.4f} on {report.apart['crops']} crops",
        flush=True,
    )
    return {
        "speedup": round(float(np.median(ratios)), 3),
        "auc_drop": report.drop["auc"],
        "iou_drop": report.drop["iou"],
        "width": card.width,
        "crops": report.apart["crops"],
    }


if __name__ == "__main__":
    main()
