"""CPU-milliseconds per crop of each engine that runs on this machine's processor, on one model.

    python -m bench.engines [--card CARD.json]

Per engine: one thread with crops given one by one, 8 and 64 at a time; two threads; and two callers on one engine. Ends with
one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from farm.contracts import CROP_SIDE_PX, ModelCard
from workers.engines import open_engine
from workers.engines.base import Engine
from workers.engines.weights import SHIPPED

CROPS = 64
WAYS = {
    "1 at a time": (1, 1, 1),
    "8 at a time": (8, 1, 1),
    "64 at a time": (64, 1, 1),
    "2 threads": (64, 2, 1),
    "2 callers": (8, 1, 2),
}
"""Name of a measurement -> crops per call, threads of the engine, callers at once."""


def cpu_ms_per_crop(engine: Engine, crops: NDArray[np.uint8], per_call: int, callers: int) -> float:
    """The best of three rounds: what disturbs a measurement only adds."""
    calls = [crops[start : start + per_call] for start in range(0, CROPS, per_call)]
    rounds = []
    with ThreadPoolExecutor(callers) as pool:
        for _ in range(3):
            started = time.process_time()
            list(pool.map(engine.predict, calls))
            rounds.append((time.process_time() - started) * 1000 / CROPS)
    return min(rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--card", type=Path, default=SHIPPED / "uynet-w16.json")
    options = parser.parse_args()
    card = ModelCard.load(options.card)
    crops = np.random.default_rng(0).integers(0, 256, (CROPS, CROP_SIDE_PX, CROP_SIDE_PX, 3), np.uint8)
    figures: dict[str, dict[str, float]] = {}
    for name in ("onnx", "openvino"):
        for way, (per_call, threads, callers) in WAYS.items():
            engine = open_engine(name, options.card.with_name(card.weights), card, threads=threads)
            figure = cpu_ms_per_crop(engine, crops, per_call, callers)
            engine.close()
            figures.setdefault(name, {})[way] = round(figure, 2)
            print(f"{name:10} {engine.spec.precision:6} {way:14} {figure:7.2f} CPU-ms per crop", flush=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
