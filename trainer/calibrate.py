"""From logits to words: temperature, bias and the two bounds of a verdict, fitted on validation data alone. Knows no file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from farm.errors import BadInput
from trainer.evaluate import Evaluation

VIDEO_MARGIN = 1.0
"""Logits added above the strictest quantile: portraits are not video, and a change of scale alone moved logits by 1 to 2."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """All of it fitted on held-out people."""

    temperature: float
    bias: float
    threshold: float
    #: of reals at the threshold: what was measured, and at least the rule of three's bound
    false_positive_rate: float
    real_below: float
    #: the sample sizes and rates behind the numbers
    figures: dict[str, Any]


def calibrate(
    evaluations: Sequence[Evaluation], margin: float = VIDEO_MARGIN, *, says_real: bool = True
) -> Calibration:
    """Fit temperature and bias (logistic regression) over all evaluations, then place the two bounds.

    FAKE starts above the 99.5 % quantile of the reals of whichever set is harder, and `margin` above it. REAL ends below the 2 %
    quantile of the fakes of any set, or, without `says_real`, nowhere. Between them the farm abstains.
    Raises BadInput where a set lacks reals or fakes.
    """
    if any(not found.fake.any() or found.fake.all() for found in evaluations):
        raise BadInput("a calibration needs reals and fakes on the validation side")
    real = np.concatenate([found.real_logits for found in evaluations])
    fake = np.concatenate([found.fake_logits for found in evaluations])
    temperature, bias = fit_sigmoid(real, fake)

    def probability(logit: float) -> float:
        return float(0.5 * (1 + np.tanh(0.5 * (logit - bias) / temperature)))

    upper = max(float(np.quantile(found.real_logits, 0.995)) for found in evaluations) + margin
    lower = min(float(np.quantile(found.fake_logits, 0.02)) for found in evaluations) if says_real else -np.inf
    threshold = round(probability(upper), 4)
    videos = sum(len(np.unique(found.videos[~found.fake])) for found in evaluations)
    figures = {
        "reals": len(real),
        "videos_of_reals": videos,
        "reals_above_threshold": int((real >= upper).sum()),
        "reals_called_real": round(float((real <= lower).mean()), 4),
        "fakes_called_fake": round(float((fake >= upper).mean()), 4),
        "fakes_called_real": round(float((fake <= lower).mean()), 4),
    }
    # A rate of 0 among n says no more than "below 3 / n" (the rule of three): state that bound, not a boast. Frames of one video
    # are no n: they stand and fall together.
    rate = min(1.0, max(figures["reals_above_threshold"] / len(real), 3 / videos))
    real_below = min(round(probability(lower), 4), threshold)
    return Calibration(float(f"{temperature:.4g}"), round(bias, 4), threshold, round(rate, 5), real_below, figures)


def abstaining(calibration: Calibration) -> Calibration:
    """The same with bounds that no score passes: for a network that has not been shown to tell fakes from reals."""
    called = dict.fromkeys(("reals_above_threshold", "reals_called_real", "fakes_called_fake", "fakes_called_real"), 0)
    return replace(calibration, threshold=1.0, real_below=0.0, figures=calibration.figures | called)


def fit_sigmoid(real: NDArray[np.float64], fake: NDArray[np.float64]) -> tuple[float, float]:
    """(temperature, bias) of p = sigmoid((logit - bias) / temperature) with the least cross-entropy (Platt, 1999).

    The labels are Platt's (n + 1) / (n + 2) and 1 / (n + 2), not 1 and 0: classes that few samples part do not end in certainty.
    """
    low, high = 1 / (len(real) + 2), (len(fake) + 1) / (len(fake) + 2)

    def cost(x: NDArray[np.float64]) -> float:
        a, b = np.exp(x[0].clip(-7, 7)), x[1]
        parts = [
            (target * np.logaddexp(0, -z) + (1 - target) * np.logaddexp(0, z)).mean()
            for target, z in ((low, a * (real - b)), (high, a * (fake - b)))
        ]
        return float(sum(parts))

    best = minimize(cost, np.array([0.0, 0.0]), method="Nelder-Mead")
    return float(np.exp(-best.x[0].clip(-7, 7))), float(best.x[1])
