"""Figures of merit with their uncertainty: AUC, IoU, bootstrap intervals. Pure numpy; knows no network and no file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]


def auc(real: Floats, fake: Floats) -> float:
    """Probability that a fake scores above a real, ties counting half (the Mann-Whitney U statistic)."""
    ranks = rankdata(np.concatenate([real, fake]))
    return float((ranks[len(real) :].sum() - len(fake) * (len(fake) + 1) / 2) / (len(real) * len(fake)))


def interval(
    figure: Callable[[NDArray[np.intp]], float], groups: Sequence[str], rounds: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % bootstrap interval of a figure of rows, whole groups (persons) drawn at a time; nan where nothing can be drawn.

    `figure` maps row numbers, repeats included, to a value; it may return nan for a draw that does not allow one.
    """
    names = np.asarray(groups)
    rows = [np.flatnonzero(names == name) for name in np.unique(names)]
    rng = np.random.default_rng(seed)
    values = [figure(np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))])) for _ in range(rounds)]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def auc_interval(real: Floats, fake: Floats, groups: Sequence[str]) -> tuple[float, float]:
    """Interval of the AUC of twins: real[i] and fake[i] belong to groups[i]."""
    return interval(lambda rows: auc(real[rows], fake[rows]), groups)


def iou(said: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks; nan if both are empty."""
    union = np.logical_or(said, true).sum()
    return float(np.logical_and(said, true).sum() / union) if union else float("nan")


def ellipse(box: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """(S, S) float32, 1 within the ellipse inscribed in a box x0 y0 x1 y1: the guess that any mask head has to beat."""
    y, x = np.mgrid[0:side, 0:side] + 0.5
    cx, cy, rx, ry = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, (box[2] - box[0]) / 2, (box[3] - box[1]) / 2
    return np.asarray(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1, np.float32)
