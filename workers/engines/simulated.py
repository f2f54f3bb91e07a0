"""A card that is not there: deterministic scores from the crops' bytes, at a set rate, without burning CPU.

It is for measuring the farm around the cards and for trying faults on it; its scores mean nothing. Opened only when asked
for by name.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from farm.contracts import CROP_SIDE_PX, EngineSpec, ModelCard, Predictions
from farm.errors import BadInput, EngineBusy
from workers.engines.base import Engine, check_pixels, sigmoid

VCK5000_CROPS_PER_SECOND = 316.8
"""What the seed measured on its VCK5000: int8, W=64, 224 x 224."""
VCK5000_BATCH = 8


class SimulatedEngine:
    """One simulated card. All threads that call it share its rate, as they would share a real card's."""

    def __init__(
        self,
        device: str = "simulated-0",
        rate: float = VCK5000_CROPS_PER_SECOND,
        *,
        die_after_crops: int | None = None,
        hang_after_crops: int | None = None,
    ) -> None:
        """Open a card that does `rate` crops per second.

        For fault tests: the call that asks for more than so many crops in all, and every later one, finds the card dead
        (raises EngineBusy) or hanging (waits until `close`, then raises EngineBusy).
        """
        if not rate > 0:
            raise BadInput(f"the simulated card's rate is {rate}, expected crops per second above 0")
        self.spec = EngineSpec(name="simulated", device=device, precision="simulated", batch=VCK5000_BATCH)
        self._rate = rate
        self._die_after_crops = die_after_crops
        self._hang_after_crops = hang_after_crops
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._free_at = 0.0
        self._crops_asked = 0

    def predict(self, pixels: NDArray[np.uint8]) -> Predictions:
        """Answer after the time the card would need. Raises BadObject for a wrong array, EngineBusy if closed or dead."""
        self._wait(self._reserve(check_pixels(pixels)))
        return scores_of(pixels)

    def close(self) -> None:
        self._closed.set()

    def _reserve(self, crops: int) -> float:
        """Queue for the card; return the moment on the monotonic clock when these crops are done."""
        with self._lock:
            if self._closed.is_set():
                raise EngineBusy(f"the simulated card {self.spec.device} is closed")
            self._crops_asked += crops
            if self._die_after_crops is not None and self._crops_asked > self._die_after_crops:
                raise EngineBusy(
                    f"the simulated card {self.spec.device} died, as it was told, after {self._die_after_crops} crops"
                )
            if self._hang_after_crops is not None and self._crops_asked > self._hang_after_crops:
                return float("inf")
            self._free_at = max(self._free_at, time.monotonic()) + crops / self._rate
            return self._free_at

    def _wait(self, until: float) -> None:
        pause = None if until == float("inf") else max(0.0, until - time.monotonic())
        if self._closed.wait(pause):
            raise EngineBusy(f"the simulated card {self.spec.device} was closed while it computed")


def scores_of(pixels: NDArray[np.uint8]) -> Predictions:
    """Scores from each crop's bytes alone: logits spread evenly over [-6, 6[, a square mask where p_fake > 0.5."""
    words = np.ascontiguousarray(pixels).reshape(pixels.shape[0], -1).view(np.uint64)
    digest = mixed(np.add.reduce(words, axis=1, dtype=np.uint64))
    logits = (digest % np.uint64(12_000)).astype(np.float32) / np.float32(1000) - np.float32(6)
    masks = np.zeros(pixels.shape[:3], np.bool_)
    for row in np.flatnonzero(logits > 0):
        top, left = (int(digest[row] >> np.uint64(shift)) % (CROP_SIDE_PX // 2) for shift in (16, 32))
        masks[row, top : top + CROP_SIDE_PX // 2, left : left + CROP_SIDE_PX // 2] = True
    return Predictions(logits=logits, p_fake=sigmoid(logits), masks=masks)


def mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread 64-bit words over their range (wrapping): the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def open_here(weights: Path, card: ModelCard, *, threads: int, device: str | None, rate: float | None) -> Engine:
    """Open a simulated card; the weights were checked against their card and are not looked at."""
    return SimulatedEngine(device or "simulated-0", VCK5000_CROPS_PER_SECOND if rate is None else rate)
