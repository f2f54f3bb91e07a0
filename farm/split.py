"""The producer's whole way: video -> frames -> faces -> tracks -> crops -> batches. Knows no job, SQL, queue or store.

The same bytes and the same recipe give the same batches bit for bit, so that a split which died half-way is simply done
again. Letters in shapes: B crops in a batch, S side of a crop, H and W of a frame.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from farm.contracts import CROP_SIDE_PX, Box, Crop, CropBatch, Face, FrameRef
from farm.errors import BadInput
from farm.media.crops import cut, inside, quality, square_box
from farm.media.faces import Detector
from farm.media.sampling import parse_sampling
from farm.media.tracks import Tracker
from farm.media.video import MAX_FRAME_PIXELS, FrameSource, VideoInfo, sample_frames

RECIPE_VERSION = 1
"""Raised with every change here or in `farm.media` that changes crops, so that old ones are not taken for new ones."""

Progress = Callable[[int, int], None]
"""Told after each frame: frames done, frames expected."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides which crops a video gives. The defaults are those of the settings."""

    sampling: str = "keyframes"
    #: name of the detector, the longer side of the picture it looks at, and its lowest confidence in (0, 1)
    detector: str = "centerface"
    detector_side_px: int = 320
    detector_confidence: float = 0.5
    #: share of the face box's longer side added on each side; the model card's
    margin: float = 0.15
    #: crops in a batch, the last one of a video excepted
    batch_crops: int = 64
    #: below these a face is counted and kept out: shorter side of its box, `quality` of its crop
    min_face_px: int = 40
    min_sharpness: float = 4.0
    min_brightness: float = 20.0
    max_frame_pixels: int = MAX_FRAME_PIXELS

    def __post_init__(self) -> None:
        parse_sampling(self.sampling)
        if self.batch_crops < 1:
            raise BadInput(f"a batch of {self.batch_crops} crops is none; FARM_BATCH_CROPS must be at least 1")
        if not 0 <= self.margin <= 2:
            raise BadInput(f"the crop margin is {self.margin}, it must lie between 0 and 2")

    @property
    def sha256(self) -> str:
        """Name of this recipe: the same crops come of two recipes with the same one."""
        values = self.to_json() | {"version": RECIPE_VERSION}
        return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The values by name, all of them plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The recipe that `to_json` told. Raises BadInput for unknown or impossible values."""
        try:
            return cls(**values)
        except TypeError as error:
            raise BadInput(f"a stored split recipe does not fit this version of the farm: {error}") from error


@dataclass(frozen=True, slots=True)
class SplitSummary:
    """What a split saw. Every face found is either a crop or counted under a reason in `rejected`."""

    frames_read: int
    faces_found: int
    crops: int
    #: too_small, too_blurred, too_dark -> number of faces
    rejected: dict[str, int]
    #: tracks with at least one crop; their numbers are 0 to tracks - 1
    tracks: int
    duration_seconds: float
    #: plain sentences about damage to the file
    notes: tuple[str, ...]
    info: VideoInfo


def split(path: Path, recipe: Recipe, detector: Detector, progress: Progress | None = None) -> SplitRun:
    """Begin to split a video into crop batches; iterate the answer for them.

    Raises BadVideo for a file that cannot be read, at once or while iterating.
    """
    return SplitRun(sample_frames(path, recipe.sampling, recipe.max_frame_pixels), recipe, detector, progress)


class SplitRun:
    """One split. Iterating yields batches as they fill, holding one batch and one frame; then `summary` is complete."""

    def __init__(
        self, frames: FrameSource, recipe: Recipe, detector: Detector, progress: Progress | None = None
    ) -> None:
        self._frames, self._recipe, self._detector, self._progress = frames, recipe, detector, progress
        self._begin()

    def _begin(self) -> None:
        self._faces_found = self._crops = 0
        self._rejected: Counter[str] = Counter()
        self._tracker = Tracker()

    @property
    def summary(self) -> SplitSummary:
        """What has been seen so far."""
        return SplitSummary(
            frames_read=self._frames.frames_read,
            faces_found=self._faces_found,
            crops=self._crops,
            rejected=dict(sorted(self._rejected.items())),
            tracks=self._tracker.tracks,
            duration_seconds=self._frames.info.duration_seconds,
            notes=self._frames.notes,
            info=self._frames.info,
        )

    def __iter__(self) -> Iterator[CropBatch]:
        # one process per core splits; OpenCV's own threads would only get in each other's way
        cv2.setNumThreads(1)
        self._begin()
        shape = (self._recipe.batch_crops, CROP_SIDE_PX, CROP_SIDE_PX, 3)
        index, crops, pixels = 0, list[Crop](), np.empty(shape, np.uint8)
        for ref, rgb in self._frames:
            for crop, crop_pixels in self._crops_of(ref, rgb):
                pixels[len(crops)] = crop_pixels
                crops.append(crop)
                if len(crops) == self._recipe.batch_crops:
                    yield CropBatch(index, pixels, tuple(crops))
                    index, crops, pixels = index + 1, [], np.empty(shape, np.uint8)
            if self._progress:
                self._progress(self._frames.frames_read, self._frames.expected_frames)
        if crops:
            yield CropBatch(index, pixels[: len(crops)], tuple(crops))

    def _crops_of(self, ref: FrameRef, rgb: NDArray[np.uint8]) -> list[tuple[Crop, NDArray[np.uint8]]]:
        """The usable faces of one frame, by track; the others are counted."""
        usable: list[tuple[Face, Box, NDArray[np.uint8]]] = []
        for face in self._detector.detect(rgb):
            self._faces_found += 1
            square = inside(square_box(face.box, self._recipe.margin), *rgb.shape[:2])
            pixels = cut(rgb, square)
            why = self._why_not(face, pixels)
            if why:
                self._rejected[why] += 1
            else:
                usable.append((face, square, pixels))
        tracks = self._tracker.follow(rgb, ref.pts_seconds, [face for face, _, _ in usable])
        self._crops += len(usable)
        found = [
            (Crop(ref, face.box, square, track, face.confidence), pixels)
            for track, (face, square, pixels) in zip(tracks, usable, strict=True)
        ]
        return sorted(found, key=lambda crop: crop[0].track)

    def _why_not(self, face: Face, pixels: NDArray[np.uint8]) -> str:
        """Why a face is kept out of the verdict; empty if it is not."""
        if min(face.box.width, face.box.height) < self._recipe.min_face_px:
            return "too_small"
        sharpness, brightness = quality(pixels)
        if brightness < self._recipe.min_brightness:
            return "too_dark"
        return "too_blurred" if sharpness < self._recipe.min_sharpness else ""
