"""How good a network is on a prepared set: every crop scored once, then figures with intervals over groups of people.

N crops, S crop side. A video's score is the mean of its crops' logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from farm.contracts import CROP_SIDE_PX
from farm.errors import BadInput
from trainer import measure
from trainer.manifest import CropSet
from trainer.scoring import Scorer

MASK_THRESHOLD = 0.5
RATES = (0.01, 0.05, 0.10)
"""False-positive rates at which a threshold is told."""
BOOTSTRAP_ROUNDS = 400
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a network said of N crops. Strings and labels are those of the manifest."""

    videos: NDArray[np.str_]
    frames: NDArray[np.int64]
    groups: NDArray[np.str_]
    methods: NDArray[np.str_]
    fake: NDArray[np.bool_]
    logits: Floats
    #: overlap of the predicted mask with the true one; nan for reals and where no mask is known
    iou: Floats
    dice: Floats
    #: overlap of an ellipse in the face box: the guess that a mask head has to beat
    ellipse_iou: Floats
    #: share of the crop that was said to be manipulated
    area: Floats

    @property
    def real_logits(self) -> Floats:
        return self.logits[~self.fake]

    @property
    def fake_logits(self) -> Floats:
        return self.logits[self.fake]


def evaluate(
    crops: CropSet,
    rows: NDArray[np.intp],
    scorer: Scorer,
    batch: int = 32,
    say: Callable[[int, int], None] = lambda done, whole: None,
) -> Evaluation:
    """Score some rows of a set, `batch` at a time; masks are measured and let go. Raises BadInput if there are none."""
    if not len(rows):
        raise BadInput(f"{crops.folder} has no crop on this side")
    logits, overlaps = np.empty(len(rows)), np.full((len(rows), 4), np.nan)
    for start in range(0, len(rows), batch):
        here = rows[start : start + batch]
        said, masks = scorer.score(np.stack([crops.crop(int(row)) for row in here]))
        logits[start : start + len(here)] = said
        for i, row in enumerate(here):
            overlaps[start + i] = _overlaps(crops, int(row), masks[i])
        say(start + len(here), len(rows))
    groups = crops.column("group")[rows].astype(str)
    families = np.array(
        [original or video for original, video in zip(crops.column("original")[rows], crops.videos[rows], strict=True)],
        str,
    )
    return Evaluation(
        crops.videos[rows].astype(str), crops.column("frame_index")[rows], np.where(groups == "", families, groups),
        crops.column("method")[rows].astype(str), crops.fake[rows], logits, *overlaps.T,
    )  # fmt: skip


def _overlaps(crops: CropSet, row: int, said: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    true, area = crops.mask(row), float(said.mean())
    if not crops.fake[row] or true is None:
        return np.nan, np.nan, np.nan, area
    guess = measure.ellipse(crops.face_boxes[row], CROP_SIDE_PX) > 0.5
    return measure.iou(said, true), measure.dice(said, true), measure.iou(guess, true), area


def figures(found: Evaluation, temperature: float = 1.0, bias: float = 0.0, threshold: float = 0.5) -> dict[str, Any]:
    """Every figure as plain values; one that cannot be had is None, with the reason under "not_measured".

    Accuracy, F1 and the counts are at `threshold` on p = sigmoid((logit - bias) / temperature), by crop, video, group and method.
    """
    videos = by_video(found)
    told: dict[str, Any] = {
        "not_measured": {},
        "crops": len(found.logits),
        "videos": len(videos.logits),
        "groups": len(set(found.groups)),
    }
    told["reals"], told["fakes"] = int((~found.fake).sum()), int(found.fake.sum())
    for name, one in (("frame", found), ("video", videos)):
        told[name] = _classes(one, temperature, bias, threshold)
    if not told["reals"] or not told["fakes"]:
        told["not_measured"]["auc"] = "the set has only one label, so nothing can be told apart"
    told["mask"] = _masks(found)
    if told["mask"]["iou"] is None:
        told["not_measured"]["mask"] = "no fake has a known mask"
    said = probability(found.logits, temperature, bias) >= threshold
    for name, column in (("by_group", found.groups), ("by_method", found.methods)):
        told[name] = {str(key): _brief(found, column, str(key), said) for key in np.unique(column)}
    return told


def by_video(found: Evaluation) -> Evaluation:
    """One row per video: mean logit, means of the overlaps."""
    names, first, at = np.unique(found.videos, return_index=True, return_inverse=True)
    counts = np.bincount(at)

    def mean(values: Floats) -> Floats:
        known = ~np.isnan(values)
        sums, known_counts = np.bincount(at, np.where(known, values, 0.0)), np.bincount(at, known)
        return np.asarray(np.divide(sums, known_counts, out=np.full(len(names), np.nan), where=known_counts > 0))

    return Evaluation(
        names, counts, found.groups[first], found.methods[first], found.fake[first], mean(found.logits), mean(found.iou),
        mean(found.dice), mean(found.ellipse_iou), mean(found.area),
    )  # fmt: skip


def probability(logits: Floats, temperature: float, bias: float) -> Floats:
    """Calibrated probability of being fake, in [0, 1]."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * (logits - bias) / temperature)))


def auc_of(found: Evaluation, rows: NDArray[np.intp] | None = None) -> float:
    """AUC of some rows (all of them); nan where a label is missing."""
    logits, fake = (found.logits, found.fake) if rows is None else (found.logits[rows], found.fake[rows])
    return measure.auc(logits[~fake], logits[fake]) if fake.any() and not fake.all() else float("nan")


def _classes(found: Evaluation, temperature: float, bias: float, threshold: float) -> dict[str, Any]:
    p = probability(found.logits, temperature, bias)
    said, fake = p >= threshold, found.fake
    right_fakes, right_reals = int((said & fake).sum()), int((~said & ~fake).sum())
    wrong_reals, wrong_fakes = int((said & ~fake).sum()), int((~said & fake).sum())
    told: dict[str, Any] = {
        "right": right_fakes + right_reals, "wrong": wrong_reals + wrong_fakes,
        "reals_called_fake": wrong_reals, "fakes_not_called_fake": wrong_fakes, "threshold": threshold,
        "accuracy": float((said == fake).mean()), "log_loss": measure.log_loss(p, fake),
        "f1": 2 * right_fakes / (2 * right_fakes + wrong_reals + wrong_fakes) if right_fakes + wrong_reals + wrong_fakes else None,
        "calibration_error": measure.calibration_error(p, fake), "reliability": measure.reliability(p, fake),
    }  # fmt: skip
    both = dict.fromkeys(
        ("auc", "auc_95", "balanced_accuracy", "eer", "average_precision", "roc", "at_false_positives")
    )
    if not fake.any() or fake.all():
        return told | both
    real, false = found.logits[~fake], found.logits[fake]
    low, high = measure.interval(lambda rows: auc_of(found, rows), found.groups.tolist(), BOOTSTRAP_ROUNDS)
    x, y, _ = measure.roc(real, false)
    shown = np.unique(np.linspace(0, len(x) - 1, 200).astype(int))
    at = {f"{rate:.2f}": measure.at_false_positives(real, false, rate) for rate in RATES}
    return told | {
        "auc": auc_of(found), "auc_95": _known([low, high]),
        "balanced_accuracy": (right_fakes / fake.sum() + right_reals / (~fake).sum()) / 2,
        "eer": measure.eer(real, false), "average_precision": measure.average_precision(real, false),
        "roc": [[float(x[i]), float(y[i])] for i in shown],
        "at_false_positives": {rate: {"logit": logit, "fakes_found": share, "reals": len(real)} for rate, (logit, share) in at.items()},
    }  # fmt: skip


def _masks(found: Evaluation) -> dict[str, Any]:
    known = found.fake & ~np.isnan(found.iou)
    told: dict[str, Any] = {"fakes_with_mask": int(known.sum()), "area_on_reals": _mean(found.area[~found.fake])}
    if not known.any():
        return told | dict.fromkeys(("iou", "iou_95", "dice", "ellipse_iou"))
    rows = np.flatnonzero(known)
    interval = measure.interval(
        lambda drawn: float(found.iou[rows[drawn]].mean()), found.groups[rows].tolist(), BOOTSTRAP_ROUNDS
    )
    means = {"iou": found.iou, "dice": found.dice, "ellipse_iou": found.ellipse_iou}
    return told | {name: _mean(values[rows]) for name, values in means.items()} | {"iou_95": _known(list(interval))}


def _brief(found: Evaluation, column: NDArray[np.str_], key: str, said: NDArray[np.bool_]) -> dict[str, Any]:
    """One group or method; for its AUC a method of fakes is set against all reals. `said` (N,) bool, called FAKE."""
    mine = (column == key) | (~found.fake if column is found.methods and found.fake[column == key].all() else False)
    auc = auc_of(found, np.flatnonzero(mine))
    right = (said == found.fake)[column == key]
    return {
        "crops": len(right),
        "right": int(right.sum()),
        "accuracy": float(right.mean()),
        "auc": None if np.isnan(auc) else auc,
        "iou": _mean(found.iou[(column == key)]),
    }


def _mean(values: Floats) -> float | None:
    return float(np.nanmean(values)) if (~np.isnan(values)).any() else None


def _known(values: list[float]) -> list[float] | None:
    return None if np.isnan(values).any() else values


def write_predictions(found: Evaluation, path: Path) -> None:
    """One row per crop, so that two evaluations can be compared without scoring again."""
    columns = {name: getattr(found, name) for name in Evaluation.__dataclass_fields__}
    pq.write_table(pa.table(columns), path)


def read_predictions(path: Path) -> Evaluation:
    """An evaluation back from its file, given the file or its folder. Raises BadInput."""
    file = path / "predictions.parquet" if path.is_dir() else path
    try:
        table = pq.read_table(file)
        arrays = [
            np.asarray(table.column(name).to_numpy(zero_copy_only=False)) for name in Evaluation.__dataclass_fields__
        ]
    except (OSError, KeyError, pa.ArrowException) as error:
        raise BadInput(f"{file} holds no predictions of `trainer evaluate --out` ({type(error).__name__})") from error
    return Evaluation(*[array.astype(str) if array.dtype == object else array for array in arrays])
