"""What the VART engine costs beside the card, and how busy it keeps one: on the stand-in card, one worker, no queue.

    python -m bench.vart_overhead [--python PYTHON3.8]

`cpu_ms_per_crop`: CPU-milliseconds per crop of both processes (quantize, shared memory, messages, collect; the stand-in's own cost
included), calls of 64 crops, on a card that answers at once. `busy`: share of the time that a card of 316.8 crops/s, the seed's measured
rate, has work while 2 callers give it batches of 64; `busy_one_caller` likewise. Best of three rounds. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from card_stand_in import StandInCard, known_network, write_xmodel

from farm.contracts import CROP_SIDE_PX

CALL_CROPS = 64
RATE = 316.8
ROUNDS = 3


@dataclass(frozen=True)
class Run:
    """One card's life under load."""

    farm_cpu_seconds: float
    card_cpu_seconds: float
    seconds: float
    busy: float


def run(calls: int, callers: int, python: str, **behaviour: object) -> Run:
    """Give a stand-in card so many calls of 64 crops from so many threads at once."""
    crops = np.random.default_rng(0).integers(0, 256, (CALL_CROPS, CROP_SIDE_PX, CROP_SIDE_PX, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(callers) as pool:
        card = StandInCard(Path(folder))
        os.environ["STAND_IN"] = str(card.folder / "stand-in.json")
        card.behave(answers="replay", **behaviour)
        engine = card.open(write_xmodel(card.folder, known_network()), python=python)
        engine.predict(crops)
        started, cpu = time.monotonic(), time.process_time()
        list(pool.map(lambda _: engine.predict(crops), range(calls)))
        cpu, seconds = time.process_time() - cpu, time.monotonic() - started
        engine.close()
        (end,) = card.journal("end")
    jobs = end["times"][-calls * CALL_CROPS // 8 :]
    busy = sum(stop - start for start, stop in jobs) / max(jobs[-1][1] - jobs[0][0], 1e-9)
    return Run(cpu, end["cpu_seconds"], seconds, busy)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="interpreter of the card's process")
    parser.add_argument("--calls", type=int, default=60)
    options = parser.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    crops = options.calls * CALL_CROPS
    # The best of a few rounds: whatever else this machine does only adds cost, and only idles the card.
    instant = min(
        (run(options.calls, 2, options.python) for _ in range(ROUNDS)),
        key=lambda each: each.farm_cpu_seconds + each.card_cpu_seconds,
    )
    two, one = (
        max((run(20, callers, options.python, rate=RATE) for _ in range(ROUNDS)), key=lambda each: each.busy)
        for callers in (2, 1)
    )
    figures = {
        "cpu_ms_per_crop": (instant.farm_cpu_seconds + instant.card_cpu_seconds) * 1000 / crops,
        "farm_cpu_ms_per_crop": instant.farm_cpu_seconds * 1000 / crops,
        "card_process_cpu_ms_per_crop": instant.card_cpu_seconds * 1000 / crops,
        "crops_per_second_instant": crops / instant.seconds,
        "busy": two.busy,
        "busy_one_caller": one.busy,
        "crops_per_second": 20 * CALL_CROPS / two.seconds,
    }
    for name, value in figures.items():
        print(f"{name:32} {value:10.4f}")
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
