"""Endless batches of pairs, made on the fly. Knows no network.

B pairs in a batch, S crop side.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from trainer.material import KINDS, Material, Source
from trainer.twins import Pair, draw_pair

__all__ = ["INPUT_OFFSET", "INPUT_SCALE", "KINDS", "Batch", "Batches", "Material", "Source", "collate", "to_input"]

INPUT_SCALE, INPUT_OFFSET = 1 / 64, -2.0
"""Network input = uint8 * scale + offset, about [-2, 2]; a power of two, so that an int8 card's input is exact."""


class Batch(NamedTuple):
    """B reals, then B fakes; fake i was made from real i where it has a twin at all."""

    #: (2B, 3, S, S) uint8, channels last in memory
    crops: Tensor
    #: (2B, 1, S, S) uint8, 1 = manipulated; 0 for reals, and where nobody knows
    masks: Tensor
    #: (2B,) bool: the mask is the truth. Always so for reals
    mask_known: Tensor


class Batches(IterableDataset[Batch]):
    """Endless batches of `pairs` pairs. For a DataLoader with batch_size=None and any number of spawned processes.

    Batch n depends on the seed and n alone, so a training that resumes at batch n sees what it would have seen.
    """

    def __init__(self, material: Material, pairs: int, seed: int, first: int = 0) -> None:
        self.material, self.pairs, self.seed, self.first = material, pairs, seed, first

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        step, start = (worker.num_workers, worker.id) if worker else (1, 0)
        number = self.first + start
        while True:
            yield self.batch(number)
            number += step

    def batch(self, number: int) -> Batch:
        """Batch n itself."""
        return collate(
            [draw_pair(self.material, np.random.default_rng((self.seed, number, i))) for i in range(self.pairs)]
        )


def collate(pairs: list[Pair]) -> Batch:
    """B pairs as one batch."""
    images = np.stack([p.real for p in pairs] + [p.fake for p in pairs])
    masks = np.stack([np.zeros_like(p.mask) for p in pairs] + [p.mask for p in pairs])[:, None].astype(np.uint8)
    known = [True] * len(pairs) + [p.mask_known for p in pairs]
    return Batch(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(masks), torch.tensor(known))


def to_input(crops: Tensor) -> Tensor:
    """uint8 crops (B, 3, S, S) -> the network's float32 input, as the model card tells an engine to do it."""
    return crops.float().mul_(INPUT_SCALE).add_(INPUT_OFFSET)
