"""How good weights are on held-out persons, with fakes of our own making. What `swap_pairs` measures is another question.

B crops, S crop side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from farm.contracts import CROP_SIDE_PX
from trainer import augment, blend
from trainer.dataset import Pair, PairMill, to_input
from trainer.measure import auc, auc_interval, ellipse, interval, iou
from trainer.model import UYNet

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
