"""How near a training step comes to the device's own matrix rate: both measured in turn, in one process, in the same arithmetic.

    python -m bench.train_step [--width 64] [--device cpu] [--pairs 2] [--threads 1] [--rounds 5] [--channels-last auto] [--compile]

A step is `trainer.train.step` at 224 px with the mask at the full side: forward, joint loss, backward, clipping, AdamW, running average.
Its arithmetic is counted as three forward passes (`estimate_macs`), so all that is no convolution lowers the share. Seconds are the
process's CPU-seconds on a CPU, so that other jobs on the machine add none, and wall seconds on a GPU.

Ends with one line of JSON: `share_of_peak`, the median over the rounds of the step's rate over the rate of the matrix products before
and after it, and its range; CPU-ms (or ms) per crop; and `parts`, where the time of one more step goes by operator.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from farm.contracts import CROP_SIDE_PX
from trainer.checkpoint import begin
from trainer.config import TrainConfig
from trainer.dataset import Batch
from trainer.model import estimate_macs
from trainer.precision import BF16
from trainer.train import step

STEPS = 1_000_000
"""Of the training that the measured steps are taken to belong to."""
PASSES = 3
"""A backward pass computes two products for each one of the forward pass."""
SQUARE = {"cpu": 1536, "cuda": 8192}
"""Side of the square matrices that are multiplied: beyond it the rate grows no more."""
PRODUCTS = {"cpu": 4, "cuda": 50}
KINDS = (
    ("convolution", ("conv", "mkldnn", "cudnn_convolution", "slow_conv")),
    ("batch norm", ("batch_norm",)),
    ("ReLU", ("threshold", "clamp", "relu")),
    ("pooling", ("pool",)),
    ("loss", ("binary_cross", "sigmoid", "softplus")),
    ("optimiser and average", ("_foreach", "_fused", "adam", "lerp")),
    ("copies and joins", ("copy", "cat", "contiguous", "fill", "zero")),
)
"""Kind of work -> what the names of its operators hold; the first that fits counts."""


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print; returns what was printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--channels-last", choices=("auto", "yes", "no"), default="auto")
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    state = begin(_config(given))
    batch = _batch(given.pairs)
    flop = 2 * PASSES * estimate_macs(given.width) * len(batch.crops)

    def once() -> None:
        step(state, STEPS, batch)

    seconds, gemm = measure(once, given.device, state.precision, given.rounds)
    shares = [flop / took / rate for took, rate in zip(seconds, gemm, strict=True)]
    result = {
        "share_of_peak": round(float(np.median(shares)), 3),
        "share_of_peak_range": [round(min(shares), 3), round(max(shares), 3)],
        "gemm_gflop_per_second": round(float(np.median(gemm)) / 1e9, 1),
        "ms_per_crop": round(float(np.median(seconds)) / len(batch.crops) * 1000, 1),
        "parts": parts(once, given.device),
        "precision": state.precision,
        "channels_last": state.channels_last,
        "accumulate": state.accumulate,
        **{key: getattr(given, key) for key in ("width", "device", "pairs", "threads", "compile")},
        "torch": torch.__version__,
    }
    print(json.dumps(result))
    return result


def _config(given: argparse.Namespace) -> TrainConfig:
    run = {key: getattr(given, key) for key in ("device", "pairs", "threads", "compile")}
    run |= {"channels_last": given.channels_last, "window_share": 0.0, "full_mask_share": 1.0}
    return TrainConfig.from_values({"width": given.width, "data": [{"manifest": "none is read"}], "run": run})


def _batch(pairs: int) -> Batch:
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (2 * pairs, CROP_SIDE_PX, CROP_SIDE_PX, 3), np.uint8)
    masks = np.zeros((2 * pairs, 1, CROP_SIDE_PX, CROP_SIDE_PX), np.uint8)
    masks[pairs:, :, 60:160, 60:160] = 1
    return Batch(
        torch.from_numpy(crops).permute(0, 3, 1, 2), torch.from_numpy(masks), torch.ones(2 * pairs, dtype=torch.bool)
    )


def measure(once: Callable[[], None], device: str, precision: str, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of a step, and the FLOP/s of matrix products around it, in each of so many rounds."""
    once()
    gemm_rate(device, precision)
    seconds, around = [], [gemm_rate(device, precision)]
    for _ in range(rounds):
        began = _clock(device)
        once()
        seconds.append(_clock(device) - began)
        around.append(gemm_rate(device, precision))
    return seconds, [(before + after) / 2 for before, after in itertools.pairwise(around)]


def gemm_rate(device: str, precision: str) -> float:
    """FLOP per second of square matrix products."""
    kind = torch.device(device).type
    side, count = SQUARE[kind], PRODUCTS[kind]
    dtype = torch.bfloat16 if precision == BF16 else torch.float32
    a, b, out = (torch.ones(side, side, dtype=dtype, device=device) for _ in range(3))
    torch.mm(a, b, out=out)
    began = _clock(device)
    for _ in range(count):
        torch.mm(a, b, out=out)
    return 2 * side**3 * count / (_clock(device) - began)


def _clock(device: str) -> float:
    if torch.device(device).type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.monotonic()


def parts(once: Callable[[], None], device: str) -> dict[str, float]:
    """Share of a step's time by kind of operator, from torch's profiler, largest first."""
    on_gpu = torch.device(device).type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as seen:
        once()
    spent: Counter[str] = Counter()
    for event in seen.key_averages():
        kind = next((name for name, words in KINDS if any(word in event.key for word in words)), "other")
        spent[kind] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    total = sum(spent.values()) or 1
    return {kind: round(time_us / total, 3) for kind, time_us in spent.most_common()}


if __name__ == "__main__":
    main()
