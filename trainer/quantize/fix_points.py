"""Which power of two stands for 1: fix points of weights and activations, chosen as the vendor's quantizer chooses them.

real = q * 2**-fix_point, q int8. Source of the rule: Vitis AI 3.5, vai_q_pytorch, `diffS` of its fix-neuron kernels and
`calibrate_int` of its quantizer: of five fix points, the largest that saturates nothing and the next four, the one with the least
squared error; of all batches' choices the most frequent. Pure arithmetic; knows no network.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEAST, MOST = -128, 127
CANDIDATES = 5
"""Fix points tried for weights and activations; for the network's input one, so that nothing saturates."""
HIGHEST = 12
"""No 8-bit tensor gets a higher fix point from the vendor's quantizer."""


def half_up(values: Tensor) -> Tensor:
    """Round to the nearest whole number, halves upward: how activations are rounded."""
    return torch.floor(values + 0.5)


def half_away(values: Tensor) -> Tensor:
    """Round to the nearest whole number, halves away from zero: how weights and biases are rounded."""
    return torch.sign(values) * torch.floor(values.abs() + 0.5)


def without_saturation(lowest: float, highest: float) -> int:
    """The highest fix point at which neither bound saturates, at most HIGHEST."""
    step = max(lowest / (LEAST - 0.5), highest / (MOST + 0.5))
    return HIGHEST if step <= 2.0**-HIGHEST else math.floor(math.log2(1 / step))


def best_fix_point(values: Tensor, *, weights: bool = False, candidates: int = CANDIDATES) -> int:
    """The fix point with the least squared error of a float tensor; of equals the lowest."""
    first = without_saturation(float(values.min()), float(values.max()))
    rounded = half_away if weights else half_up
    errors = {}
    for fix_point in range(first, min(first + candidates, HIGHEST + 1)):
        scale = 2.0**fix_point
        quantized = rounded(values * scale).clamp_(LEAST, MOST)
        errors[fix_point] = float((quantized / scale - values).double().square().sum())
    return min(errors, key=lambda fix_point: (errors[fix_point], fix_point))


def quantized_weights(real: NDArray[np.float32], fix_point: int) -> NDArray[np.int8]:
    """Real weights as int8 at a fix point: rounded half away from zero, saturated."""
    scaled = torch.from_numpy(np.ldexp(real.astype(np.float64), fix_point))
    return half_away(scaled).clamp_(LEAST, MOST).numpy().astype(np.int8)


class Votes:
    """The fix points that batches chose for one tensor."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, fix_point: int) -> int:
        """Count one batch's choice; the most frequent one so far, of equals the lowest."""
        self._counts[fix_point] += 1
        return self.winner

    @property
    def winner(self) -> int:
        return min(self._counts, key=lambda fix_point: (-self._counts[fix_point], fix_point))
