"""Faces in one frame. Knows pixels and boxes; no video, track or crop. One file per detector, opened by name here.

Letters in shapes: H and W of a frame, N faces.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from farm.contracts import Box, Face
from farm.errors import BadInput

OVERLAP_LIMIT = 0.3
"""Two boxes whose IoU is above this are the same face; the more confident one stays."""


class Detector(Protocol):
    """Finds every face in a frame. One instance belongs to one thread."""

    name: str

    def detect(self, rgb: NDArray[np.uint8]) -> list[Face]:
        """All faces of an (H, W, 3) uint8 RGB frame in pixels of that frame, the most confident first."""
        ...


def open_detector(name: str = "centerface", side_px: int = 320, confidence: float = 0.5, threads: int = 1) -> Detector:
    """Open a face detector by its registered name.

    `side_px` is the longer side in pixels of the picture the detector looks at, `confidence` in (0, 1) the lowest that
    counts as a face. Raises BadInput for an unknown name or values out of range, EngineMissing if its runtime or model
    is not installed.
    """
    if name not in DETECTORS:
        raise BadInput(f"no face detector is called {name!r} (FARM_DETECTOR); there are {', '.join(sorted(DETECTORS))}")
    if not 32 <= side_px <= 4096:
        raise BadInput(f"the detector's side is {side_px} px, it must be 32 to 4096 (FARM_DETECTOR_SIDE_PX)")
    if not 0 < confidence < 1:
        raise BadInput(f"the detector's confidence is {confidence}, not between 0 and 1 (FARM_DETECTOR_CONFIDENCE)")
    return DETECTORS[name](side_px, confidence, threads)


def shrink(rgb: NDArray[np.uint8], side_px: int) -> tuple[NDArray[np.uint8], float]:
    """A view of the frame whose longer side is `side_px`, and the factor from its pixels to the frame's."""
    height, width = rgb.shape[:2]
    factor = max(height, width) / side_px
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if factor > 1 else cv2.INTER_LINEAR)
    return np.asarray(small, np.uint8), factor


def distinct(faces: list[Face]) -> list[Face]:
    """The faces without doubles (non-maximum suppression), the most confident first."""
    boxes = [(f.box.x0, f.box.y0, f.box.width, f.box.height) for f in faces]
    kept = cv2.dnn.NMSBoxes(boxes, [f.confidence for f in faces], 0.0, OVERLAP_LIMIT) if faces else ()
    return sorted((faces[int(i)] for i in kept), key=lambda f: (-f.confidence, f.box.x0, f.box.y0))


def _open_centerface(side_px: int, confidence: float, threads: int) -> Detector:
    from farm.media.centerface import CenterFace

    return CenterFace(side_px, confidence, threads)


def _open_haar(side_px: int, confidence: float, threads: int) -> Detector:
    from farm.media.haar import Haar

    return Haar(side_px, confidence)


DETECTORS: dict[str, Callable[[int, float, int], Detector]] = {"centerface": _open_centerface, "haar": _open_haar}
"""Registered detectors: name -> how it is opened (side in px, confidence, threads)."""


def box_within(box: Box, width: int, height: int) -> bool:
    """True if any of the box lies within a frame of this size."""
    return box.x1 > 0 and box.y1 > 0 and box.x0 < width and box.y0 < height
