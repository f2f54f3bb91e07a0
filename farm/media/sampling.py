"""Which frames of a video are looked at. Knows times in seconds, no file and no pixel.

keyframes   the frames that decode by themselves, thinned where dense, filled in where sparse (the default)
fps:X       X frames per second of presentation time, 0 < X <= 240
every:N     every Nth frame
uniform:N   N frames, evenly spread
all         every frame
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from farm.errors import BadInput

FLOOR_SECONDS = 2.0
"""`keyframes` leaves no gap longer than this between two frames it looks at."""
CEILING_SECONDS = 0.5
"""`keyframes` takes no two key frames closer than this: in MJPEG and other intra codecs every frame is one."""
FEWEST_FRAMES = 8
"""What a judgement should rest on: in short files `keyframes` closes gaps down to duration / FEWEST_FRAMES."""
_TOLERANCE_SECONDS = 1e-6
_KINDS = {"keyframes": None, "all": None, "fps": (0.0, 240.0), "every": (1, 1_000_000), "uniform": (1, 1_000_000)}


@dataclass(frozen=True, slots=True)
class Sampling:
    """A parsed policy."""

    #: keyframes, fps, every, uniform or all
    kind: str
    #: X of fps:X, N of every:N and uniform:N; 1 where the kind has none
    value: float = 1

    def __str__(self) -> str:
        return self.kind if _KINDS[self.kind] is None else f"{self.kind}:{self.value:g}"

    @property
    def looks_at_times(self) -> bool:
        """True where frames are chosen by time, so that what lies between need not be decoded."""
        return self.kind in ("keyframes", "fps", "uniform")


def parse_sampling(text: str) -> Sampling:
    """The policy a string names. Raises BadInput with the known ones."""
    kind, colon, number = text.strip().partition(":")
    span = _KINDS.get(kind, ())
    if span is None and not colon:
        return Sampling(kind)
    if span and colon:
        try:
            value = float(number) if kind == "fps" else int(number)
        except ValueError:
            value = math.nan
        if value > 0 and span[0] <= value <= span[1]:
            return Sampling(kind, value)
    raise BadInput(
        f"the sampling policy {text!r} is not one of keyframes, fps:X (0 < X <= 240), every:N, uniform:N, all"
    )


def target_times(sampling: Sampling, keyframes: NDArray[np.float64], end_seconds: float) -> NDArray[np.float64]:
    """The ascending times to look at; each is answered by the first frame at or after it.

    `keyframes` are the ascending times of the key frames, `end_seconds` that of the last frame, both from the stream's
    start. Only for policies that look at times.
    """
    if sampling.kind == "keyframes":
        return _keyframe_targets(keyframes, end_seconds)
    if sampling.kind == "fps":
        count = math.floor(end_seconds * sampling.value + _TOLERANCE_SECONDS) + 1
        return np.asarray(np.arange(count) / sampling.value, np.float64)
    if sampling.kind == "uniform":
        count = int(sampling.value)
        return np.asarray((np.arange(count) + 0.5) * (end_seconds / count), np.float64)
    raise ValueError(f"{sampling} does not look at times")


def times_wanted(sampling: Sampling, end_seconds: float) -> float:
    """About how many times `target_times` would give, without making them."""
    if sampling.kind == "keyframes":
        gap = _keyframe_gap(end_seconds)
        return end_seconds / gap if gap > 0 else 1
    return end_seconds * sampling.value if sampling.kind == "fps" else sampling.value


def _keyframe_gap(end_seconds: float) -> float:
    return min(FLOOR_SECONDS, end_seconds / FEWEST_FRAMES)


def _keyframe_targets(keyframes: NDArray[np.float64], end_seconds: float) -> NDArray[np.float64]:
    gap = _keyframe_gap(end_seconds)
    anchors = _thinned(keyframes, min(CEILING_SECONDS, gap / 2))
    chosen: list[float] = []
    for start, stop in zip(anchors, [*anchors[1:], end_seconds], strict=True):
        pieces = max(1, math.ceil((stop - start) / gap - _TOLERANCE_SECONDS)) if gap > 0 else 1
        chosen.extend(start + k * (stop - start) / pieces for k in range(pieces))
    return np.array(chosen, np.float64)


def _thinned(times: NDArray[np.float64], spacing: float) -> list[float]:
    """The times without those that follow the last kept one by less than `spacing`."""
    kept: list[float] = []
    for time in times.tolist():
        if not kept or (time > kept[-1] and time - kept[-1] >= spacing - _TOLERANCE_SECONDS):
            kept.append(time)
    return kept
