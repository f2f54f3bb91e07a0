"""Square face crops out of a frame, and a crop's mask back onto its frame. Knows pixels and boxes; no track, no batch.

Every pixel of a crop is a pixel of its frame: a square that reaches over the edge is shifted inside, and one larger
than the frame shrinks to the frame's shorter side. Replicated edges make streaks and mirrored ones a second mouth, and
a network that looks for traces of manipulation finds both. The price is a face off the crop's centre near the edge.
Letters in shapes: S side of a crop, H and W of a frame.
"""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from farm.contracts import CROP_SIDE_PX, Box

SMALLEST_SIDE_PX = 2
_Value = TypeVar("_Value", np.bool_, np.float32)


def square_box(face: Box, margin: float) -> Box:
    """The square centred on a face box, its side the face's longer side widened by `margin` of it on each side.

    It may reach over the frame's edge; `inside` says what is really cut.
    """
    half = max(face.width, face.height) * (1 + 2 * margin) / 2
    x, y = (face.x0 + face.x1) / 2, (face.y0 + face.y1) / 2
    return Box(x - half, y - half, x + half, y + half)


def inside(box: Box, frame_h: int, frame_w: int) -> Box:
    """The square of whole pixels that is really cut for `box`: rounded, shrunk to the frame, shifted inside.

    Cutting it again changes nothing: `inside` of its own answer is that answer.
    """
    side = min(max(SMALLEST_SIDE_PX, round(max(box.width, box.height))), frame_h, frame_w)
    x0 = min(max(0, round((box.x0 + box.x1 - side) / 2)), frame_w - side)
    y0 = min(max(0, round((box.y0 + box.y1 - side) / 2)), frame_h - side)
    return Box(x0, y0, x0 + side, y0 + side)


def cut(rgb: NDArray[np.uint8], crop_box: Box, side_px: int = CROP_SIDE_PX) -> NDArray[np.uint8]:
    """The pixels of `inside(crop_box, H, W)` of an (H, W, 3) uint8 frame as an (S, S, 3) uint8 crop of its own memory.

    Area averages when it shrinks, so that no frequency folds back as a false trace; bilinear when it grows.
    """
    x0, y0, x1, y1 = _pixels(crop_box, rgb.shape[0], rgb.shape[1])
    window = rgb[y0:y1, x0:x1]
    if window.shape[0] == side_px:
        return window.copy()
    how = cv2.INTER_AREA if window.shape[0] > side_px else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(window, (side_px, side_px), interpolation=how), np.uint8)


def paste_mask(mask: NDArray[_Value], crop_box: Box, frame_h: int, frame_w: int) -> NDArray[_Value]:
    """A crop's (S, S) mask laid back on its frame: (H, W) of the same dtype, zero outside the crop.

    float32 in [0, 1] is interpolated; bool is interpolated and cut at one half.
    """
    x0, y0, x1, y1 = _pixels(crop_box, frame_h, frame_w)
    size = (x1 - x0, y1 - y0)
    how = cv2.INTER_AREA if size[0] < mask.shape[1] else cv2.INTER_LINEAR
    laid = cv2.resize(mask.astype(np.float32), size, interpolation=how)
    frame = np.zeros((frame_h, frame_w), mask.dtype)
    frame[y0:y1, x0:x1] = laid >= 0.5 if mask.dtype == np.bool_ else laid
    return frame


def quality(crop: NDArray[np.uint8]) -> tuple[float, float]:
    """Sharpness and brightness of an (S, S, 3) uint8 crop: its grey Laplacian's variance, its mean grey of 255."""
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_32F).var()), float(grey.mean())


def _pixels(box: Box, frame_h: int, frame_w: int) -> tuple[int, int, int, int]:
    real = inside(box, frame_h, frame_w)
    return int(real.x0), int(real.y0), int(real.x1), int(real.y1)
