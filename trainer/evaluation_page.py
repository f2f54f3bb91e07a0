"""An evaluation as one HTML page that loads nothing: headline figures, ROC, reliability, tables, and crops with their masks."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from numpy.typing import NDArray

from trainer.curves import sample_grid
from trainer.evaluate import Evaluation, write_predictions
from trainer.manifest import CropSet
from trainer.scoring import Scorer

SHOWN_EACH = 4
"""Crops per kind of example: most wrong fakes, most wrong reals, most surely found fakes."""
GREY = 128
"""Of the lines between pictures."""


def write_report(
    told: dict[str, Any], found: Evaluation, crops: CropSet, rows: NDArray[np.intp], scorer: Scorer, folder: Path
) -> None:
    """Write index.html, evaluation.json and predictions.parquet (for `trainer compare`) into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(found, folder / "predictions.parquet")
    (folder / "evaluation.json").write_text(json.dumps(told, indent=1))
    write_page(told, found, crops, rows, scorer, folder / "index.html")


def write_page(
    told: dict[str, Any], found: Evaluation, crops: CropSet, rows: NDArray[np.intp], scorer: Scorer, path: Path
) -> None:
    """Write the page; `rows` are those that `found` is of."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True)
    grids = [(title, _grid(crops, rows[at], scorer)) for title, at in _examples(found) if len(at)]
    page = environment.get_template("evaluation.html").render(told=told, grids=grids, plots=_plots(told))
    path.write_text(page)


def _examples(found: Evaluation) -> list[tuple[str, NDArray[np.intp]]]:
    order = np.argsort(found.logits, kind="stable")
    fakes, reals = order[found.fake[order]], order[~found.fake[order]]
    return [
        ("Fakes with the lowest scores", fakes[:SHOWN_EACH]),
        ("Reals with the highest scores", reals[::-1][:SHOWN_EACH]),
        ("Fakes with the highest scores", fakes[::-1][:SHOWN_EACH]),
    ]


def _grid(crops: CropSet, rows: NDArray[np.intp], scorer: Scorer) -> str:
    pixels = np.stack([crops.crop(int(row)) for row in rows])
    _, masks = scorer.score(pixels)
    true = [crops.mask(int(row)) for row in rows]
    actual = np.stack([np.full(pixels.shape[1:3], 0.5) if m is None else m for m in true]).astype(np.float32)
    grid = sample_grid(pixels, masks.astype(np.float32), actual)
    side = len(grid) // len(pixels)
    grid[:, [side, 2 * side]] = grid[side::side] = GREY  # else black masks run into each other
    _, png = cv2.imencode(".png", grid[:, :, ::-1])
    return base64.b64encode(png.tobytes()).decode()


def _plots(told: dict[str, Any]) -> list[tuple[str, str, str, list[tuple[float, float]]]]:
    """(title, x axis, y axis, points in [0, 1])."""
    plots = []
    for name in ("frame", "video"):
        if told[name]["roc"] is not None:
            points = [(0.0, 0.0), *((x, y) for x, y in told[name]["roc"]), (1.0, 1.0)]
            plots.append((f"ROC by {name}", "reals called fake", "fakes found", points))
    steps = [(said, true) for _, said, true in told["frame"]["reliability"]]
    plots.append(("Reliability by frame", "calibrated probability", "share of fakes", steps))
    return plots
