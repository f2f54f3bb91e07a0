"""The card's numbers: int8 with a power-of-two scale, real = q * 2**-fix_point (the fix point may be negative).

Pure arithmetic on arrays; knows no card and no process. Letters: N pictures, S side of a picture in pixels.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SHIFT_TO_UNSIGNED = 128
TIE_UP = 2.0**-11
"""Added before OpenCV rounds half to even, so that a half is rounded up; far below the distance of any other value to a half."""


def input_table(scale: float, offset: float, fix_point: int) -> NDArray[np.int8]:
    """(256,) int8: the quantized value of each pixel value, clip(floor((value * scale + offset) * 2**fix_point + 0.5), -128, 127).

    value * scale + offset is taken in float32, as the float engines compute it; the rest is exact.
    """
    real = np.arange(256, dtype=np.float32) * np.float32(scale) + np.float32(offset)
    return np.clip(np.floor(np.ldexp(real.astype(np.float64), fix_point) + 0.5), -128, 127).astype(np.int8)


class Quantizer:
    """Writes pictures as the card's input, in place.

    Where OpenCV's multiply-and-saturate gives the table's value for all 256 pixel values (it does for every scale in use), it is
    taken instead of the table: 5 times less CPU, and not a bit of difference.
    """

    def __init__(self, scale: float, offset: float, fix_point: int) -> None:
        self.table = input_table(scale, offset, fix_point)
        self._factor = math.ldexp(scale, fix_point)
        self._constant = math.ldexp(offset, fix_point) + SHIFT_TO_UNSIGNED + TIE_UP
        self.straight = self._is_straight()

    def quantize(self, pixels: NDArray[np.uint8], out: NDArray[np.int8]) -> None:
        """Write (N, S, S, 3) uint8 `pixels` into `out`, int8 of the same shape; both C-contiguous."""
        source, target = pixels.reshape(pixels.shape[0], -1), out.reshape(out.shape[0], -1)
        if self.straight:
            self._multiply(source, target.view(np.uint8))
        else:
            cv2.LUT(source, self.table, dst=target)

    def fill(self, pixels: NDArray[np.uint8], lanes: NDArray[np.int8]) -> None:
        """Quantize N pictures into the first of B lanes and zero the others: the card always gets a full batch."""
        count = pixels.shape[0]
        self.quantize(pixels, lanes[:count])
        lanes[count:] = 0

    def _multiply(self, source: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
        cv2.convertScaleAbs(source, dst=target, alpha=self._factor, beta=self._constant)
        np.bitwise_xor(target, np.uint8(SHIFT_TO_UNSIGNED), out=target)

    def _is_straight(self) -> bool:
        # Three lengths, so that both the wide loop and the remainder at a row's end meet every value.
        for length in (256, 256 + 63, 256 * 3 + 1):
            source = np.resize(np.arange(256, dtype=np.uint8), (1, length))
            target = np.empty_like(source)
            self._multiply(source, target)
            if not np.array_equal(target.view(np.int8), self.table[source]):
                return False
        return True


def real_values(quantized: NDArray[Any], fix_point: int) -> NDArray[np.float32]:
    """What int8 values stand for."""
    return np.ldexp(quantized.astype(np.float32), -fix_point)


def quantized_cut(cut: float, fix_point: int) -> int:
    """The integer above which exactly those quantized values lie whose real value is above `cut`."""
    return math.floor(math.ldexp(cut, fix_point))
