"""The pictures of a report: the most telling crops with their masks, and whole frames with masks and boxes laid back on them.

Chooses in one pass over the scores and loads each crop batch at most once, one at a time: memory does not grow with the video.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from farm.contracts import Box
from farm.db.results import ScoredFace
from farm.media.crops import paste_mask
from farm.media.masks import outlined, overlay

CROPS_SHOWN = 8
CROPS_PER_TRACK = 4
"""Where several faces were judged, none takes all the places."""
FRAME_SIDE_PX = 960
THUMBNAIL_PX = 96
_TIME_BINS = 16
_INK, _PAPER = (24, 26, 30), (255, 255, 255)


@dataclass(frozen=True, slots=True)
class CropPicture:
    """One telling crop, as data URIs."""

    track: int
    pts_seconds: float
    p_fake: float
    mask_area: float
    plain: str
    masked: str


@dataclass(frozen=True, slots=True)
class FramePicture:
    """One whole frame with everything laid back on it, as a data URI."""

    pts_seconds: float
    image: str
    width: int
    height: int
    boxes: int
    words: str


@dataclass(slots=True)
class Chooser:
    """Keeps the highest crop per track and slice of time: neighbours in time look alike and tell nothing new."""

    end_seconds: float
    #: tracks that matter, most fake first; the others are taken together
    tracks: Sequence[int]
    _best: dict[tuple[int, int], ScoredFace] = field(default_factory=dict)

    def add(self, scored: ScoredFace) -> None:
        part = int(_TIME_BINS * min(max(scored.pts_seconds / max(self.end_seconds, 1e-3), 0), 1))
        key = (scored.track if scored.track in self.tracks else -1, part)
        if key not in self._best or scored.p_fake > self._best[key].p_fake:
            self._best[key] = scored

    def crops(self) -> list[ScoredFace]:
        """The most telling crops, highest score first."""
        ranked = sorted(self._best.values(), key=lambda scored: (-scored.p_fake, scored.pts_seconds))
        shares: dict[int, int] = {}
        first: list[ScoredFace] = []
        rest: list[ScoredFace] = []
        for scored in ranked:
            shares[scored.track] = shares.get(scored.track, 0) + 1
            (first if shares[scored.track] <= CROPS_PER_TRACK else rest).append(scored)
        return sorted((first + rest)[:CROPS_SHOWN], key=lambda scored: (-scored.p_fake, scored.pts_seconds))


def whole_frames(crops: Sequence[ScoredFace], within: Mapping[int, Sequence[ScoredFace]]) -> list[ScoredFace]:
    """One crop for each frame worth showing whole: the highest, then the highest of a face that is not in that frame.

    `crops` highest first; `within` the faces of each of their frames.
    """
    if not crops:
        return []
    there = {face.track for face in within[crops[0].frame_index]}
    return [crops[0], *[scored for scored in crops if scored.track not in there][:1]]


def crop_picture(
    scored: ScoredFace, pixels: NDArray[np.uint8], mask: NDArray[np.bool_], threshold: float
) -> CropPicture:
    """Pictures of one crop: pixels (S, S, 3) uint8 RGB, mask (S, S) bool. Below the threshold a mask is an outline: no claim."""
    drawn = (overlay if scored.p_fake >= threshold else outlined)(pixels, mask)
    return CropPicture(
        scored.track,
        scored.pts_seconds,
        scored.p_fake,
        scored.mask_area,
        jpeg(pixels, quality=88),
        jpeg(drawn, quality=88),
    )


def thumbnail(pixels: NDArray[np.uint8]) -> str:
    """A small picture of a crop for the table of videos."""
    small = cv2.resize(pixels, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
    return jpeg(np.asarray(small, np.uint8), quality=72)


def frame_picture(
    rgb: NDArray[np.uint8],
    pts_seconds: float,
    faces: Iterable[ScoredFace],
    masks: Mapping[tuple[int, int], NDArray[np.bool_]],
    threshold: float,
) -> FramePicture:
    """A frame (H, W, 3) uint8 RGB with the masks of its faces laid back on it and their boxes drawn; masks by (batch id, row)."""
    scale = min(1.0, FRAME_SIDE_PX / max(rgb.shape[:2]))
    h, w = max(1, round(rgb.shape[0] * scale)), max(1, round(rgb.shape[1] * scale))
    picture = np.asarray(cv2.resize(rgb, (w, h), interpolation=cv2.INTER_AREA), np.uint8)
    shown = sorted(faces, key=lambda scored: scored.p_fake)
    for scored in shown:
        mask = masks.get((scored.crop_batch_id, scored.row))
        if mask is not None:
            pasted = paste_mask(mask, _scaled(scored.crop_box, scale), h, w)
            picture = (overlay if scored.p_fake >= threshold else outlined)(picture, pasted)
    for scored in shown:
        _draw_box(picture, _scaled(scored.face_box, scale), f"face {scored.track}  {scored.p_fake:.3f}")
    words = ", ".join(f"face {scored.track} scores {scored.p_fake:.3f}" for scored in reversed(shown[-6:]))
    if len(shown) > 6:
        words += f" and {len(shown) - 6} more"
    return FramePicture(pts_seconds, jpeg(picture, quality=82), w, h, len(shown), words)


def jpeg(rgb: NDArray[np.uint8], *, quality: int) -> str:
    """A data URI of (H, W, 3) uint8 RGB; for the eye only, the stored crops stay lossless."""
    _, packed = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return "data:image/jpeg;base64," + base64.b64encode(packed.tobytes()).decode()


def _scaled(box: Box, scale: float) -> Box:
    return Box(box.x0 * scale, box.y0 * scale, box.x1 * scale, box.y1 * scale)


def _draw_box(picture: NDArray[np.uint8], box: Box, words: str) -> None:
    corner, end = (round(box.x0), round(box.y0)), (round(box.x1), round(box.y1))
    cv2.rectangle(picture, corner, end, _INK, 3, cv2.LINE_AA)
    cv2.rectangle(picture, corner, end, _PAPER, 1, cv2.LINE_AA)
    (w, h), base = cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
    x = min(max(0, corner[0]), max(0, picture.shape[1] - w - 10))
    y = corner[1] - base - 4 if corner[1] > h + 12 else min(end[1] + h + 7, picture.shape[0] - base - 3)
    cv2.rectangle(picture, (x, y - h - 5), (x + w + 10, y + base + 3), _INK, cv2.FILLED)
    cv2.putText(picture, words, (x + 5, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _PAPER, 1, cv2.LINE_AA)
