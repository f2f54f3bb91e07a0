"""Which face of each frame is the one a video is about. Knows boxes; no video, no pixel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from farm.contracts import Box

NEAR_SIDES = 1.5
"""Centres of one face in two neighbouring samples lie apart by this many box sides at most."""
LARGEST_RATIO = 1.6
"""The longer sides of its boxes differ by this factor at most."""
T = TypeVar("T")


def one_per_frame(frames: Sequence[Sequence[T]], box_of: Callable[[T], Box]) -> list[T]:
    """One face of every frame that has any, in order: the largest of all frames, followed to both sides of its frame.

    A frame's face is the nearest of like size to the one chosen before; where none is near, after a cut or when the person has left,
    the largest.
    """
    shown = [faces for faces in frames if faces]
    if not shown:
        return []
    largest = [max(faces, key=lambda one: box_of(one).area) for faces in shown]
    start = max(range(len(shown)), key=lambda i: box_of(largest[i]).area)
    chosen = {start: largest[start]}
    for step, stop in ((1, len(shown)), (-1, -1)):
        for i in range(start + step, stop, step):
            chosen[i] = _next(shown[i], box_of, box_of(chosen[i - step]), largest[i])
    return [chosen[i] for i in range(len(shown))]


def _next(faces: Sequence[T], box_of: Callable[[T], Box], before: Box, largest: T) -> T:
    near = [(apart, i) for i, one in enumerate(faces) if (apart := _apart(before, box_of(one))) <= NEAR_SIDES]
    return faces[min(near)[1]] if near else largest


def _apart(a: Box, b: Box) -> float:
    """Distance of two centres in mean box sides; infinite where the sizes are not alike."""
    sides = max(a.width, a.height), max(b.width, b.height)
    if min(sides) <= 0 or max(sides) / min(sides) > LARGEST_RATIO:
        return float("inf")
    across, down = (a.x0 + a.x1 - b.x0 - b.x1) / 2, (a.y0 + a.y1 - b.y0 - b.y1) / 2
    return float((across**2 + down**2) ** 0.5 / (sum(sides) / 2))
