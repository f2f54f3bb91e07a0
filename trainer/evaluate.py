"""How good weights are: on held-out persons with fakes of our own making, and on a folder of real/fake video pairs.

The pairs are looked at, never learnt from: no threshold, checkpoint or setting may be chosen by what they say.
B crops, S crop side.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from farm.contracts import CROP_SIDE_PX
from farm.errors import BadInput
from farm.media.crops import cut, square_box
from farm.media.faces import Detector, open_detector
from farm.media.video import sample_frames
from trainer import augment, blend
from trainer.dataset import Pair, PairMill, to_input
from trainer.measure import auc, auc_interval, ellipse, interval, iou
from trainer.model import UYNet
from trainer.prepare import CROP_MARGIN

PLAIN = augment.Recipe(False, (0.0, 0.0, 1.0), (1, 1, 0, 1, 1, 1, 1), False, CROP_SIDE_PX, 0.0, 0.0, 0, ())
"""The recipe that leaves a picture as it is."""
MASK_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class Scores:
    """Twins' raw class logits and the fakes' mask overlaps, row by row."""

    real: NDArray[np.float64]
    fake: NDArray[np.float64]
    iou: NDArray[np.float64]
    ellipse_iou: NDArray[np.float64]
    #: group that is drawn as one in the bootstrap: the person
    groups: tuple[str, ...]
    kinds: tuple[str, ...]


@torch.no_grad()
def predict(model: UYNet, crops: NDArray[np.uint8], batch: int = 16) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(B, S, S, 3) uint8 -> (B,) logits and (B, S, S) masks."""
    model.eval()
    logits, masks = [], []
    for start in range(0, len(crops), batch):
        image = to_input(torch.from_numpy(crops[start : start + batch]).permute(0, 3, 1, 2))
        out = model(image.contiguous(memory_format=torch.channels_last))
        logits.append(out.class_logit[:, 0].double().numpy())
        masks.append((out.mask_logit[:, 0] > np.log(MASK_THRESHOLD / (1 - MASK_THRESHOLD))).numpy())
    return np.concatenate(logits), np.concatenate(masks)


def validate(
    model: UYNet,
    mill: PairMill,
    rows: NDArray[np.intp],
    recipe_of: Callable[[np.random.Generator], augment.Recipe] = augment.draw,
    seed: int = 1,
) -> Scores:
    """Score every row's face against one fake of each kind, all drawn from the seed: the same twins at every call."""
    columns: list[Scores] = []
    for row in rows:
        person = mill.faces.persons[row]
        pairs, boxes = [], []
        for number, kind in enumerate(blend.KINDS):
            rng = np.random.default_rng((seed, int(row), number))
            recipe = recipe_of(rng)
            pairs.append(mill.make(rng, int(row), kind, recipe))
            boxes.append(augment.move(recipe, ellipse(mill.faces.boxes[row], CROP_SIDE_PX)) > 0.5)
        columns.append(_score(model, pairs, boxes, person))
    return Scores(
        np.concatenate([c.real for c in columns]),
        np.concatenate([c.fake for c in columns]),
        np.concatenate([c.iou for c in columns]),
        np.concatenate([c.ellipse_iou for c in columns]),
        tuple(group for c in columns for group in c.groups),
        tuple(kind for c in columns for kind in c.kinds),
    )


def _score(model: UYNet, pairs: list[Pair], guesses: list[NDArray[np.bool_]], person: str) -> Scores:
    logits, masks = predict(model, np.stack([p.real for p in pairs] + [p.fake for p in pairs]))
    n = len(pairs)
    overlaps = np.array([iou(mask, p.mask) for mask, p in zip(masks[n:], pairs, strict=True)])
    guessed = np.array([iou(guess, p.mask) for guess, p in zip(guesses, pairs, strict=True)])
    return Scores(logits[:n], logits[n:], overlaps, guessed, (person,) * n, tuple(p.kind for p in pairs))


def summarise(scores: Scores) -> dict[str, Any]:
    """Validation figures as the card states them."""
    kinds = np.array(scores.kinds)
    low, high = auc_interval(scores.real, scores.fake, scores.groups)
    by_kind = {kind: round(auc(scores.real[kinds == kind], scores.fake[kinds == kind]), 3) for kind in blend.KINDS}
    iou_low, iou_high = interval(lambda rows: float(np.nanmean(scores.iou[rows])), scores.groups)
    return {
        "frame_auc": round(auc(scores.real, scores.fake), 4),
        "frame_auc_95": [round(low, 4), round(high, 4)],
        "frame_auc_by_kind": by_kind,
        "fake_above_its_own_real": round(float((scores.fake > scores.real).mean()), 4),
        "mask_iou": round(float(np.nanmean(scores.iou)), 4),
        "mask_iou_95": [round(iou_low, 4), round(iou_high, 4)],
        "ellipse_iou": round(float(np.nanmean(scores.ellipse_iou)), 4),
        "persons": len(set(scores.groups)),
        "pairs": len(scores.real),
    }


def video_like(rng: np.random.Generator) -> augment.Recipe:
    """A recipe as hard as small faces in a twice compressed video: what thresholds must survive, photographs being all we have."""
    base = augment.draw(rng)
    native = int(rng.integers(90, 150))
    twice = tuple(("h264", int(rng.integers(23, 34)), 1.0) for _ in range(2))
    return augment.Recipe(base.flip, base.window, base.colour, False, native, 0.0, base.noise, base.noise_seed, twice)


def pairs_report(model: UYNet, folder: Path, frames_per_video: int = 8) -> dict[str, Any]:
    """AUC by frame and by video on a folder with `videos.csv` and `pairs/`; the interval draws whole groups of people."""
    detector = open_detector("centerface", side_px=320, confidence=0.5)
    with (folder / "videos.csv").open(newline="") as file:
        listed = [row for row in csv.DictReader(file) if row["file"].startswith("pairs/")]
    if not listed:
        raise BadInput(f"{folder}/videos.csv lists no pairs")
    videos = [
        (row["label"], row["group"], video_logits(model, folder / row["file"], detector, frames_per_video))
        for row in listed
    ]
    return pairs_figures([(label, group, logits) for label, group, logits in videos if len(logits)])


def pairs_figures(videos: list[tuple[str, str, NDArray[np.float64]]]) -> dict[str, Any]:
    """Figures of (label, group, frame logits) per video."""

    def by(rows: NDArray[np.intp], whole: bool) -> float:
        sides: dict[str, list[float]] = {"REAL": [], "FAKE": []}
        for i in rows:
            label, _, logits = videos[i]
            sides[label] += [float(logits.mean())] if whole else logits.tolist()
        return (
            auc(np.array(sides["REAL"]), np.array(sides["FAKE"])) if sides["REAL"] and sides["FAKE"] else float("nan")
        )

    everything = np.arange(len(videos))
    groups = [group for _, group, _ in videos]
    figures: dict[str, Any] = {
        "videos": len(videos),
        "groups": len(set(groups)),
        "frames": sum(len(v[2]) for v in videos),
    }
    for key, whole in (("frame_auc", False), ("video_auc", True)):
        low, high = interval(lambda rows, whole=whole: by(rows, whole), groups)  # type: ignore[misc]
        figures |= {key: round(by(everything, whole), 3), f"{key}_95": [round(low, 3), round(high, 3)]}
    return figures


def video_logits(model: UYNet, path: Path, detector: Detector, frames: int) -> NDArray[np.float64]:
    """Logits of the largest face in evenly spaced frames of a video, as the farm would cut it."""
    crops = []
    for _, rgb in sample_frames(path, f"uniform:{frames}"):
        if faces := detector.detect(rgb):
            face = max(faces, key=lambda f: f.box.area)
            crops.append(cut(rgb, square_box(face.box, CROP_MARGIN), CROP_SIDE_PX))
    return predict(model, np.stack(crops))[0] if crops else np.empty(0)
