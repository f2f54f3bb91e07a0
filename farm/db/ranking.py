"""How well scores rank labelled videos: AUC and EER from ranks, ties included. Pure numbers, knows no SQL."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def auc(fake: ArrayLike, real: ArrayLike) -> float | None:
    """Probability that a fake scores above a real, ties counting half: the area under the ROC curve, in [0, 1].

    From the midranks of the joined scores (Mann and Whitney 1947). None where either side is empty.
    """
    f, r = np.asarray(fake, dtype=np.float64), np.asarray(real, dtype=np.float64)
    if not f.size or not r.size:
        return None
    _, rank_of, count = np.unique(np.concatenate([f, r]), return_inverse=True, return_counts=True)
    midrank = np.cumsum(count) - (count - 1) / 2
    above = midrank[rank_of[: f.size]].sum() - f.size * (f.size + 1) / 2
    return float(above / (f.size * r.size))


def eer(fake: ArrayLike, real: ArrayLike) -> float | None:
    """Equal error rate in [0, 1]: where the share of reals called fake equals the share of fakes missed.

    Between two thresholds the ROC curve is taken as a straight line, which is also how ties count. None where either side is empty.
    """
    f, r = np.asarray(fake, dtype=np.float64), np.asarray(real, dtype=np.float64)
    if not f.size or not r.size:
        return None
    thresholds = np.unique(np.concatenate([f, r]))[::-1]
    false_alarms = np.concatenate([[0.0], _share_at_or_above(r, thresholds)])
    misses = np.concatenate([[1.0], 1.0 - _share_at_or_above(f, thresholds)])
    gap = misses - false_alarms  # falls from 1 to -1
    after = int(np.argmax(gap <= 0))
    t = gap[after - 1] / (gap[after - 1] - gap[after])
    return float(false_alarms[after - 1] + t * (false_alarms[after] - false_alarms[after - 1]))


def _share_at_or_above(scores: NDArray[np.float64], thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1.0 - np.searchsorted(np.sort(scores), thresholds, side="left") / scores.size
