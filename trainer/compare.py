"""Two evaluations of the same crops, set against each other pair by pair. Knows predictions, no network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from farm.errors import BadInput
from trainer import measure
from trainer.evaluate import BOOTSTRAP_ROUNDS, Evaluation, auc_of, by_video


def compare(old: Evaluation, new: Evaluation) -> dict[str, Any]:
    """{figure: {"old", "new", "difference", "difference_95"}}; the same groups are drawn for both, so what they share cancels.

    A figure that either cannot have is left out. Raises BadInput where the two are not of the same crops.
    """
    if not (np.array_equal(old.videos, new.videos) and np.array_equal(old.frames, new.frames)):
        raise BadInput("the two evaluations are of different crops; evaluate both on one manifest and side")
    told = {}
    videos = by_video(old), by_video(new)
    for name, pair, figure in (
        ("frame_auc", (old, new), auc_of),
        ("video_auc", videos, auc_of),
        ("mask_iou", (old, new), _mask_iou),
    ):
        if found := _difference(*pair, figure):
            told[name] = found
    return told


def _difference(
    old: Evaluation, new: Evaluation, figure: Callable[[Evaluation, NDArray[np.intp]], float]
) -> dict[str, Any] | None:
    every = np.arange(len(old.logits))
    before, after = figure(old, every), figure(new, every)
    if np.isnan([before, after]).any():
        return None
    low, high = measure.interval(
        lambda rows: figure(new, rows) - figure(old, rows), old.groups.tolist(), BOOTSTRAP_ROUNDS
    )
    interval = None if np.isnan([low, high]).any() else [low, high]
    return {"old": before, "new": after, "difference": after - before, "difference_95": interval}


def _mask_iou(found: Evaluation, rows: NDArray[np.intp]) -> float:
    known = found.iou[rows]
    return float(np.nanmean(known)) if (~np.isnan(known)).any() else float("nan")
