"""Faces of sampled frames joined to tracks: one number per person and shot. Knows boxes and frames, no file, no model.

Frames are sampled seconds apart, and people move: two boxes are one face if they overlap, or if they lie near each other
and are of like size. A change of scene or a long gap ends all tracks.
Letters in shapes: H and W of a frame, N faces.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from farm.contracts import Box, Face

CUT_OVERLAP, CUT_LIKENESS = 0.7, 0.4
"""Two frames are of different scenes where both the overlap of their block histograms and the likeness of their thumbnails
fall below these. Either alone takes a panning camera or two dark rooms wrongly."""
SURE_CUT_OVERLAP = 0.4
"""Below this the histograms are enough."""
LONGEST_GAP_SECONDS = 6.0
"""A face unseen for longer starts a new track: three times the sampling floor, so one missed detection does not."""
NEAR_SIZES = 0.8
"""Centres may lie apart by this share of the mean box side between two frames."""
LARGEST_RATIO = 1.6
"""The longer sides of one face's boxes differ by this factor at most."""
SMALLEST_IOU = 0.1
_VIEW_PX, _THUMB_PX = 96, 16
_BLOCKS, _BINS = 3, 16


@dataclass(slots=True)
class _Trace:
    """Where a track was seen last."""

    track: int
    box: Box
    seconds: float


@dataclass(frozen=True, slots=True)
class _View:
    """What a frame looks like from afar."""

    #: (9, 16) float32: the grey histogram of each of 3 x 3 blocks, each row sums to 1
    blocks: NDArray[np.float32]
    #: (16, 16) float32: a thumbnail of zero mean and length 1
    thumb: NDArray[np.float32]

    @classmethod
    def of(cls, rgb: NDArray[np.uint8]) -> _View:
        # every nth pixel instead of a mean, which would cost a pass over the whole frame
        rows, cols = (max(1, size // _VIEW_PX) for size in rgb.shape[:2])
        grey = cv2.cvtColor(np.ascontiguousarray(rgb[::rows, ::cols]), cv2.COLOR_RGB2GRAY)
        parts = [part for band in np.array_split(grey, _BLOCKS) for part in np.array_split(band, _BLOCKS, axis=1)]
        counts = [np.bincount(part.ravel() // (256 // _BINS), minlength=_BINS) / max(1, part.size) for part in parts]
        # the square root lifts what is dark: in a dim room the faces are all there is
        thumb = np.sqrt(cv2.resize(grey, (_THUMB_PX, _THUMB_PX), interpolation=cv2.INTER_AREA).astype(np.float32))
        thumb -= thumb.mean()
        length = max(1e-6, float(np.linalg.norm(thumb)))
        return cls(np.array(counts, np.float32), np.asarray(thumb / length, np.float32))

    def is_cut_from(self, other: _View) -> bool:
        overlap = float(np.minimum(self.blocks, other.blocks).sum(axis=1).mean())
        likeness = float((self.thumb * other.thumb).sum())
        return overlap < SURE_CUT_OVERLAP or (overlap < CUT_OVERLAP and likeness < CUT_LIKENESS)


@dataclass(slots=True)
class Tracker:
    """Numbers the faces of one video's frames, given in order. The same frames and faces give the same numbers."""

    #: tracks begun so far; their numbers are 0 to tracks - 1
    tracks: int = 0
    #: changes of scene seen so far
    scene_changes: int = 0
    _traces: list[_Trace] = field(default_factory=list)
    _view: _View | None = None

    def follow(self, rgb: NDArray[np.uint8], pts_seconds: float, faces: list[Face]) -> list[int]:
        """The track number of each of the N faces of the next (H, W, 3) uint8 RGB frame."""
        view = _View.of(rgb)
        if self._view is not None and self._view.is_cut_from(view):
            self.scene_changes += 1
            self._traces.clear()
        self._view = view
        self._traces = [t for t in self._traces if pts_seconds - t.seconds <= LONGEST_GAP_SECONDS]
        numbers = self._matched([face.box for face in faces])
        for i, face in enumerate(faces):
            if i not in numbers:
                numbers[i] = self.tracks
                self._traces.append(_Trace(self.tracks, face.box, pts_seconds))
                self.tracks += 1
        by_track = {track: i for i, track in numbers.items()}
        for trace in self._traces:
            if trace.track in by_track:
                trace.box, trace.seconds = faces[by_track[trace.track]].box, pts_seconds
        return [numbers[i] for i in range(len(faces))]

    def _matched(self, boxes: list[Box]) -> dict[int, int]:
        """Face number -> track number for the faces seen before, the most alike pairs first."""
        pairs = sorted(
            (-likeness, trace.track, i)
            for trace in self._traces
            for i, box in enumerate(boxes)
            if (likeness := _likeness(trace.box, box)) > 0
        )
        numbers: dict[int, int] = {}
        for _, track, i in pairs:
            if i not in numbers and track not in numbers.values():
                numbers[i] = track
        return numbers


def _likeness(a: Box, b: Box) -> float:
    """How much two boxes of two frames look like one face: 1 to 2 if they overlap, 0 to 1 if they are near, 0 if neither."""
    sides = max(a.width, a.height), max(b.width, b.height)
    if min(sides) <= 0 or max(sides) / min(sides) > LARGEST_RATIO:
        return 0.0
    overlap = a.iou(b)
    if overlap >= SMALLEST_IOU:
        return 1 + overlap
    across = (a.x0 + a.x1 - b.x0 - b.x1) / 2
    down = (a.y0 + a.y1 - b.y0 - b.y1) / 2
    apart = float(np.hypot(across, down)) / (sum(sides) / 2)
    return max(0.0, 1 - apart / NEAR_SIZES)
