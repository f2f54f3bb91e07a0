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
    """The 95 % bootstrap interval of a figure of rows, whole groups (persons) drawn at a time; nan where there are not two groups.

    `figure` maps row numbers, repeats included, to a value; it may return nan for a draw that does not allow one.
    """
    names = np.asarray(groups)
    rows = [np.flatnonzero(names == name) for name in np.unique(names)]
    if len(rows) < 2:  # drawn again and again, one group gives one value: an interval of no width would boast
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    values = [figure(np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))])) for _ in range(rounds)]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def iou(said: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks; nan if both are empty."""
    union = np.logical_or(said, true).sum()
    return float(np.logical_and(said, true).sum() / union) if union else float("nan")


def ellipse(box: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """(S, S) float32, 1 within the ellipse inscribed in a box x0 y0 x1 y1: the guess that any mask head has to beat."""
    y, x = np.mgrid[0:side, 0:side] + 0.5
    cx, cy, rx, ry = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, (box[2] - box[0]) / 2, (box[3] - box[1]) / 2
    return np.asarray(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1, np.float32)


def roc(real: Floats, fake: Floats) -> tuple[Floats, Floats, Floats]:
    """(false-positive rate, true-positive rate, threshold) at every distinct score, the strictest first; fake is score >= threshold."""
    thresholds = np.unique(np.concatenate([real, fake]))[::-1]
    reals, fakes = np.sort(real), np.sort(fake)
    above = [
        (len(scores) - np.searchsorted(scores, thresholds, side="left")) / len(scores) for scores in (reals, fakes)
    ]
    return above[0], above[1], thresholds


def eer(real: Floats, fake: Floats) -> float:
    """Equal error rate: where false positives and misses cross, linear between the two nearest thresholds; in [0, 1]."""
    false, true, _ = roc(real, fake)
    false, miss = np.append(0.0, false), np.append(1.0, 1 - true)
    at = int(np.argmax(false >= miss))
    gap = (false - miss)[[at - 1, at]]
    share = 0.0 if gap[1] == gap[0] else -gap[0] / (gap[1] - gap[0])
    return float(false[at - 1] + share * (false[at] - false[at - 1]))


def average_precision(real: Floats, fake: Floats) -> float:
    """Mean of the precision over the steps of recall (no interpolation)."""
    false, true, _ = roc(real, fake)
    caught = true * len(fake)
    precision = caught / (caught + false * len(real))
    return float((np.diff(true, prepend=0.0) * precision).sum())


def at_false_positives(real: Floats, fake: Floats, rate: float) -> tuple[float, float]:
    """(threshold, share of fakes found) of the loosest threshold with at most this share of reals above it."""
    false, true, thresholds = roc(real, fake)
    allowed = np.flatnonzero(false <= rate)
    if not len(allowed):
        return float(np.nextafter(thresholds[0], np.inf)), 0.0
    return float(thresholds[allowed[-1]]), float(true[allowed[-1]])


def log_loss(p: Floats, fake: NDArray[np.bool_]) -> float:
    """Mean negative log likelihood of probabilities of being fake, cut at 1e-12."""
    sure = np.where(fake, p, 1 - p).clip(1e-12, 1)
    return float(-np.log(sure).mean())


def reliability(p: Floats, fake: NDArray[np.bool_], bins: int = 15) -> list[tuple[int, float, float]]:
    """(crops, mean probability, share of fakes) of every non-empty bin of equal width over [0, 1]."""
    which = np.minimum((p * bins).astype(int), bins - 1)
    return [
        (int((which == b).sum()), float(p[which == b].mean()), float(fake[which == b].mean())) for b in np.unique(which)
    ]


def calibration_error(p: Floats, fake: NDArray[np.bool_], bins: int = 15) -> float:
    """Expected calibration error: the bins' |share - probability|, weighted by their size; in [0, 1]."""
    return sum(n * abs(said - true) for n, said, true in reliability(p, fake, bins)) / len(p)


def dice(said: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """Twice the intersection over the sum of two masks; nan if both are empty."""
    total = said.sum() + true.sum()
    return float(2 * np.logical_and(said, true).sum() / total) if total else float("nan")
