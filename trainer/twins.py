"""A real crop and a fake beside it, both sent down the same road. Knows no batch and no network.

S crop side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer import augment, blend
from trainer.material import PAIR, UNPAIRED, Material, Source

DONOR_CANDIDATES = 24


@dataclass(frozen=True, slots=True)
class Pair:
    """A real and a fake, and where the fake lies."""

    #: (S, S, 3) uint8
    real: NDArray[np.uint8]
    #: (S, S, 3) uint8
    fake: NDArray[np.uint8]
    #: (S, S) bool, True = manipulated; all False where it is not known
    mask: NDArray[np.bool_]
    mask_known: bool
    kind: str


def draw_pair(material: Material, rng: np.random.Generator) -> Pair:
    """A pair by the material's weights and shares."""
    source, kind = material.draw(rng)
    return make_pair(source, draw_row(source, kind, rng), kind, rng)


def draw_row(source: Source, kind: str, rng: np.random.Generator) -> int:
    """The row a pair of that kind starts from: a fake of the set for "pair" and "unpaired", else the real to blend into."""
    if kind in (PAIR, UNPAIRED):
        methods = source.fakes[kind]
        return methods[int(rng.integers(len(methods)))].draw(rng)
    mono = len(source.mono) and (rng.random() < (source.mono_share or 0) or not len(source.colour))
    return (source.mono if mono else source.colour).draw(rng)


def make_pair(
    source: Source, row: int, kind: str, rng: np.random.Generator, recipe: augment.Recipe | None = None
) -> Pair:
    """The pair that starts from a row, as `draw_row` gives it. Without a recipe one is drawn.

    Twins get one recipe. A fake beside a real of somebody else gets a draw of its own from the same distribution, unless a recipe
    is given.
    """
    if kind == UNPAIRED:
        return _unpaired(source, row, rng, recipe)
    if kind == PAIR:
        recipe = recipe or augment.draw(rng)
        real, fake = source.crops.crop(int(source.crops.original_rows[row])), source.crops.crop(row)
        return Pair(augment.apply(recipe, real), augment.apply(recipe, fake), *_mask(source, row, recipe), PAIR)
    target = _view(source, row, kind, rng)
    fake, alpha = blend.make_fake(target, _view(source, _donor(source, row, rng), kind, rng), kind, rng)
    recipe = recipe or augment.draw(rng)
    where = augment.move(recipe, alpha) > blend.MANIPULATED_ABOVE
    return Pair(augment.apply(recipe, target.crop), augment.apply(recipe, fake), where, True, kind)


def _unpaired(source: Source, row: int, rng: np.random.Generator, recipe: augment.Recipe | None) -> Pair:
    real = augment.apply(recipe or augment.draw(rng), source.crops.crop(source.reals.draw(rng)))
    recipe = recipe or augment.draw(rng)
    return Pair(real, augment.apply(recipe, source.crops.crop(row)), *_mask(source, row, recipe), UNPAIRED)


def _mask(source: Source, row: int, recipe: augment.Recipe) -> tuple[NDArray[np.bool_], bool]:
    mask = source.crops.mask(row)
    if mask is None:
        side = source.crops.crop(row).shape[0]
        return np.zeros((side, side), np.bool_), False
    return augment.move(recipe, mask.astype(np.float32)) > 0.5, True


def _view(source: Source, row: int, kind: str, rng: np.random.Generator) -> blend.View:
    generators = source.redrawn.get(kind, ())
    inner = np.asarray(generators[int(rng.integers(len(generators)))][row]) if generators else None
    return blend.View(source.crops.crop(row), source.crops.points[row], inner)


def _donor(source: Source, row: int, rng: np.random.Generator) -> int:
    """Somebody of another group whose head is held alike: the nearest in pose of a few drawn at random; the row itself if nobody is."""
    pool = source.mono if len(source.mono) and source.is_mono[row] else source.colour
    candidates = [pool.draw(rng) for _ in range(DONOR_CANDIDATES)]
    others = [c for c in candidates if source.groups[c] != source.groups[row]] or [row]
    pose = _pose(source.crops.points[row])
    return min(others, key=lambda c: float(np.abs(_pose(source.crops.points[c]) - pose).sum()))


def _pose(points: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = points - points.mean(axis=0)
    return np.asarray(centred / (np.linalg.norm(centred) + 1e-6), np.float32)
