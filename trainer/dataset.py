"""Pairs of twins, made on the fly: a real crop and a fake made from it, both sent down the same road. Knows no network.

B pairs in a batch, S crop side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from trainer import augment, blend
from trainer.prepare import Faces, load

MONO_SHARE = 0.12
"""Share of monochrome faces among those drawn: they are many, old and coarse, and video is colour."""
DONOR_CANDIDATES = 24
INPUT_SCALE, INPUT_OFFSET = 1 / 64, -2.0
"""Network input = uint8 * scale + offset, about [-2, 2]; a power of two, so that an int8 card's input is exact."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Twins and where the second one lies."""

    #: (S, S, 3) uint8
    real: NDArray[np.uint8]
    #: (S, S, 3) uint8
    fake: NDArray[np.uint8]
    #: (S, S) bool, True = manipulated
    mask: NDArray[np.bool_]
    kind: str


class Pairs(IterableDataset[tuple[Tensor, Tensor]]):
    """Endless batches ((2B, 3, S, S) uint8, (2B, 1, S, S) uint8 masks): B reals, then their B fakes.

    Batch n depends on the seed and n alone, so a training that resumes at batch n sees what it would have seen.
    """

    def __init__(self, cache: Path, rows: NDArray[np.intp], pairs: int, seed: int, first: int = 0) -> None:
        self.cache, self.rows, self.pairs, self.seed, self.first = cache, rows, pairs, seed, first

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = torch.utils.data.get_worker_info()
        step, start = (worker.num_workers, worker.id) if worker else (1, 0)
        mill = PairMill.open(self.cache, self.rows)
        number = self.first + start
        while True:
            yield collate([mill.make(np.random.default_rng((self.seed, number, i))) for i in range(self.pairs)])
            number += step


@dataclass(frozen=True, slots=True)
class PairMill:
    """Turns random numbers into pairs."""

    faces: Faces
    #: (stages, N, R, R, 3) uint8, or None if nothing was re-drawn
    redrawn: NDArray[np.uint8] | None
    colour_rows: NDArray[np.intp]
    mono_rows: NDArray[np.intp]

    @classmethod
    def open(cls, cache: Path, rows: NDArray[np.intp]) -> PairMill:
        """Map a cache; `rows` are the faces that may be used, as targets and as donors."""
        faces = load(cache)
        path = cache / "redrawn.npy"
        return cls(
            faces,
            np.load(path, mmap_mode="r") if path.exists() else None,
            rows[~faces.mono[rows]],
            rows[faces.mono[rows]],
        )

    def make(
        self,
        rng: np.random.Generator,
        row: int | None = None,
        kind: str | None = None,
        recipe: augment.Recipe | None = None,
    ) -> Pair:
        """One pair; what is not given is drawn."""
        if row is None:
            mono = len(self.mono_rows) and (rng.random() < MONO_SHARE or not len(self.colour_rows))
            row = int(rng.choice(self.mono_rows if mono else self.colour_rows))
        kind = kind or str(rng.choice(blend.KINDS, p=blend.KIND_SHARES))
        target = self._view(row, rng)
        fake, alpha = blend.make_fake(target, self._view(self._donor(row, rng), rng), kind, rng)
        recipe = recipe or augment.draw(rng)
        where = augment.move(recipe, alpha) > blend.MANIPULATED_ABOVE
        return Pair(augment.apply(recipe, target.crop), augment.apply(recipe, fake), where, kind)

    def _view(self, row: int, rng: np.random.Generator) -> blend.View:
        redrawn = None if self.redrawn is None else np.asarray(self.redrawn[int(rng.integers(len(self.redrawn))), row])
        return blend.View(np.asarray(self.faces.crops[row]), np.asarray(self.faces.points[row]), redrawn)

    def _donor(self, row: int, rng: np.random.Generator) -> int:
        """Another person whose head is held alike: the nearest in pose of a few drawn at random."""
        pool = self.mono_rows if self.faces.mono[row] else self.colour_rows
        candidates = rng.choice(pool, min(DONOR_CANDIDATES, len(pool)), replace=False)
        others = [int(c) for c in candidates if self.faces.persons[int(c)] != self.faces.persons[row]] or [row]
        pose = _pose(self.faces.points[row])
        return min(others, key=lambda c: float(np.abs(_pose(self.faces.points[c]) - pose).sum()))


def _pose(points: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = points - points.mean(axis=0)
    return np.asarray(centred / (np.linalg.norm(centred) + 1e-6), np.float32)


def collate(pairs: list[Pair]) -> tuple[Tensor, Tensor]:
    """B pairs -> ((2B, 3, S, S) uint8 channels-last, (2B, 1, S, S) uint8): the reals first."""
    images = np.stack([p.real for p in pairs] + [p.fake for p in pairs])
    masks = np.stack([np.zeros_like(p.mask) for p in pairs] + [p.mask for p in pairs])[:, None].astype(np.uint8)
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(masks)


def to_input(crops: Tensor) -> Tensor:
    """uint8 crops (B, 3, S, S) -> the network's float32 input, as the model card tells an engine to do it."""
    return crops.float().mul_(INPUT_SCALE).add_(INPUT_OFFSET)
