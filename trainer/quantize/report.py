"""What quantizing cost: the quantized network beside the float one, on the same held-out crops. Knows no format and no runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from farm.contracts import ModelCard
from farm.errors import BadInput, BadModel
from trainer.evaluate import Evaluation, auc_of, probability

FIGURES = ("accuracy", "auc", "iou")
"""Balanced accuracy at a calibrated probability of .5; AUC by crop; mean mask IoU of the fakes whose mask is known."""
MOST_DROP = 0.01
"""A figure may fall by one point before quantized weights are refused."""


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of both, in [0, 1], and how far apart their answers are."""

    full: dict[str, float]
    quantized: dict[str, float]
    #: crops, groups, mean and largest difference of p_fake, share on the same side of .5
    apart: dict[str, Any]

    @property
    def drop(self) -> dict[str, float]:
        """By how much each figure fell; negative where it rose."""
        return {name: round(self.full[name] - self.quantized[name], 5) for name in FIGURES}

    def to_values(self) -> dict[str, Any]:
        """For a model card."""
        return {"float": self.full, "int8": self.quantized, "drop": self.drop, **self.apart}

    def check(self, name: str, *, allow_drop: bool) -> None:
        """Raise BadModel if a figure fell by more than MOST_DROP, unless that is allowed."""
        fallen = [
            f"{key} {self.full[key]:.4f} -> {self.quantized[key]:.4f}" for key in FIGURES if self.drop[key] > MOST_DROP
        ]
        if fallen and not allow_drop:
            raise BadModel(
                f"quantizing {name} costs more than {MOST_DROP:.0%} of {', '.join(fallen)}, so nothing was kept: calibrate on more "
                "crops of the kind to be scanned, try another backend, or take it as it is with --allow-drop"
            )


def compared(full: Evaluation, quantized: Evaluation, card: ModelCard) -> Report:
    """Set two evaluations of the same crops against each other. Raises BadInput where there is nothing to measure by."""
    ours, theirs = _p(full, card), _p(quantized, card)
    apart = np.abs(ours - theirs)
    return Report(
        _figures(full, card),
        _figures(quantized, card),
        {
            "crops": len(apart),
            "groups": len(set(full.groups)),
            "p_fake_difference_mean": round(float(apart.mean()), 5),
            "p_fake_difference_max": round(float(apart.max()), 5),
            "same_side_of_half": round(float(((ours >= 0.5) == (theirs >= 0.5)).mean()), 5),
        },
    )


def _p(found: Evaluation, card: ModelCard) -> np.ndarray[Any, np.dtype[np.float64]]:
    return probability(found.logits, card.temperature, card.bias)


def _figures(found: Evaluation, card: ModelCard) -> dict[str, float]:
    known = ~np.isnan(found.iou)
    if not found.fake.any() or found.fake.all() or not known.any():
        raise BadInput(
            "the held-out crops need reals, fakes and the fakes' masks, or nothing can be said of accuracy, AUC and IoU: "
            "give a prepared set with both labels, such as `trainer make-fakes` writes"
        )
    said = _p(found, card) >= 0.5
    accuracy = (said[found.fake].mean() + (~said[~found.fake]).mean()) / 2
    figures = {"accuracy": accuracy, "auc": auc_of(found), "iou": found.iou[known].mean()}
    return {name: round(float(value), 5) for name, value in figures.items()}
