"""Does the loader feed the training? Pairs per second of 1 and 2 loader processes beside the rate of training steps in the same run.

    python -m bench.loader --data DIR [--kinds self,donor,pair] [--width 16] [--device cpu] [--batches 12]

DIR is a set made by `trainer prepare`. Ends with one line of JSON: CPU-ms per pair by kind, pairs/s by number of processes, pairs/s that
the training step takes (`trainer.train.step` as configured by default but at the full side, one CPU thread, or the device), and `starves`:
whether one process makes fewer than that.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from trainer.checkpoint import begin
from trainer.config import TrainConfig
from trainer.dataset import Batch, Batches, Material, Source
from trainer.manifest import CropSet
from trainer.train import step
from trainer.twins import draw_row, make_pair

PAIRS = 16
LOADERS = (1, 2)
WARM_UP = 3
STEPS = 1_000_000
"""Of the training that the measured steps are taken to belong to."""


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print; returns what was printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kinds", default="self,resampled,donor")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, default=12, help="batches of 16 pairs to time")
    given = parser.parse_args(argv)
    one_thread(0)
    crops = CropSet.open(given.data)
    kinds = dict.fromkeys(given.kinds.split(","), 1.0)
    source = Source(crops, np.arange(len(crops)), kinds)
    batches = Batches(Material.of([source]), PAIRS, seed=0)
    takes = step_rate(given.width, given.device, batches.batch(0), given.batches)
    makes = {loaders: loader_rate(batches, loaders, given.batches) for loaders in LOADERS}
    result = {
        "cpu_ms_per_pair": {kind: round(cpu_ms(source, kind, 4 * given.batches), 2) for kind in kinds},
        "pairs_per_second": {str(loaders): round(rate, 1) for loaders, rate in makes.items()},
        "training_takes_pairs_per_second": round(takes, 1),
        "loader_to_training": round(makes[1] / takes, 2),
        "starves": makes[1] < takes,
        "width": given.width,
        "device": given.device,
    }
    print(json.dumps(result))
    return result


def one_thread(_: int) -> None:
    """A loader process, or this one, keeps to one core."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def cpu_ms(source: Source, kind: str, pairs: int) -> float:
    """Mean CPU-ms of one pair of a kind, augmentation included."""
    rngs = [np.random.default_rng((1, n)) for n in range(pairs)]
    began = time.process_time()
    for rng in rngs:
        make_pair(source, draw_row(source, kind, rng), kind, rng)
    return (time.process_time() - began) / pairs * 1000


def loader_rate(batches: Batches, loaders: int, count: int) -> float:
    """Pairs per second that so many spawned processes make once they run."""
    loader = iter(
        DataLoader(
            batches,
            batch_size=None,
            num_workers=loaders,
            prefetch_factor=2,
            worker_init_fn=one_thread,
            multiprocessing_context="spawn",
        )
    )
    # What was made while the processes started and filled their queues is not counted.
    for _ in range(WARM_UP * loaders):
        next(loader)
    began = time.monotonic()
    for _ in range(count):
        next(loader)
    return count * PAIRS / (time.monotonic() - began)


def step_rate(width: int, device: str, batch: Batch, count: int) -> float:
    """Pairs per second that a training step takes at the full side, with the full mask in as many steps as a training has them."""
    run = {"device": device, "pairs": PAIRS, "window_share": 0.0}
    state = begin(TrainConfig.from_values({"width": width, "data": [{"manifest": "none is read"}], "run": run}))
    times = []
    for _ in range(WARM_UP + count):
        began = time.monotonic()
        step(state, STEPS, batch)  # waits for the device
        times.append(time.monotonic() - began)
    return PAIRS / float(np.mean(times[WARM_UP:]))


if __name__ == "__main__":
    main()
