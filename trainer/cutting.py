"""One original with all its fakes becomes crops: the unit of work of `trainer prepare`. Runs in a worker process; knows no pool.

A unit's boxes come from its original and are laid on the same frames of every fake, so that a pair shows the same square of the same
moment. Letters: S crop side, H and W of a frame.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from farm.contracts import CROP_SIDE_PX, Box, Face, FrameRef
from farm.errors import BadVideo, StorageAway
from farm.media.crops import cut, inside, square_box
from farm.media.faces import Detector, open_detector
from farm.media.video import probe, sample_frames
from trainer.faces import one_per_frame
from trainer.manifest import CROP_MARGIN, SCHEMA, write_shard
from trainer.masks import manipulated
from trainer.portraits import is_engraving, is_mono
from trainer.sources.listing import FAKE, Remark, Source

UNITS = "units"
MOST_FACES = 8
"""Of the faces in one frame so many are looked at, the largest first."""
SAME_SHAPE = 0.01
"""Frames whose width : height differs by a smaller share are of one shape: the box can be scaled from one to the other."""


@dataclass(frozen=True, slots=True)
class Cutting:
    """All that decides which pixels come out; kept beside the set, so that no set is cut in two ways."""

    #: looked at per video, evenly spread from the first on
    frames: int = 10
    detector: str = "centerface"
    #: longer side of the picture that the detector sees
    detector_side_px: int = 320
    #: lowest that counts as a face, in (0, 1)
    confidence: float = 0.5


@dataclass(frozen=True, slots=True)
class Unit:
    """A real with the fakes made from it, or a fake whose original is not in the set, alone."""

    #: unlike any other unit's, and another one once its files or labels change; names its files below DIR
    name: str
    sources: tuple[Source, ...]
    size_bytes: int
    #: pictures instead of videos
    pictures: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """One face in one frame, cut out."""

    ref: FrameRef
    #: H and W of the frame
    shape: tuple[int, int]
    face: Face
    #: (S, S, 3) uint8
    crop: NDArray[np.uint8]

    @property
    def square(self) -> Box:
        """What was cut, in pixels of the frame."""
        return inside(square_box(self.face.box, CROP_MARGIN), *self.shape)


@dataclass(frozen=True, slots=True)
class _Shot:
    """A crop of one source, ready to be stored."""

    seen: Seen
    crop: NDArray[np.uint8]
    square: Box
    #: (S, S) bool, None where nobody knows
    mask: NDArray[np.bool_] | None


def cut_unit(root: Path, out: Path, how: Cutting, unit: Unit) -> None:
    """Cut a unit and store its arrays and rows below `out`, the file that says it is finished last.

    What cannot be read or holds no face is remarked in that file. Raises StorageAway where `out` cannot be written.
    """
    detector = _detector(how.detector, how.detector_side_px, how.confidence)
    rows: list[dict[str, Any]] = []
    remarks: list[Remark] = []
    first, *fakes = unit.sources
    seen, stride = _look(root, first, unit.pictures, how, detector, remarks)
    try:
        rows += _store(out, f"{unit.name}-0", first, [_alone(first, one) for one in seen])
        for number, fake in enumerate(fakes, 1):
            shots = _beside(root, fake, seen, stride, how, detector, remarks)
            rows += _store(out, f"{unit.name}-{number}", fake, shots)
        _finish(out, unit, rows, remarks)
    except OSError as error:
        raise StorageAway(
            f"{out} cannot be written ({error.strerror or error}); make room, or name another folder, and "
            "give the same command again, it goes on from here"
        ) from error


def _look(
    root: Path, source: Source, is_picture: bool, how: Cutting, detector: Detector, remarks: list[Remark]
) -> tuple[list[Seen], int]:
    """One face in each frame looked at, and the stride from one to the next. Nothing, remarked, where there is none."""
    try:
        if is_picture:
            return _look_at_picture(root / source.video, detector), 1
        # counted in presentation order: two encodings of one film place their key frames, and so their cheap frames, differently
        stride = max(1, probe(root / source.video).frames_found // how.frames)
        seen = [_candidates(ref, rgb, detector) for ref, rgb in _frames(root / source.video, stride, how.frames)]
    except BadVideo as error:
        remarks.append(Remark(source.video, "unreadable", str(error)))
        return [], 1
    except _Unfit as error:
        remarks.append(Remark(source.video, str(error)))
        return [], 1
    chosen = one_per_frame(seen, lambda one: one.face.box)
    if not chosen:
        remarks.append(Remark(source.video, "no face found", f"in {len(seen)} frames"))
    return chosen, stride


def _frames(path: Path, stride: int, count: int) -> Iterator[tuple[FrameRef, NDArray[np.uint8]]]:
    for ref, rgb in sample_frames(path, f"every:{stride}"):
        if ref.index >= stride * count:
            return
        yield ref, rgb


def _candidates(ref: FrameRef, rgb: NDArray[np.uint8], detector: Detector) -> list[Seen]:
    faces = sorted(detector.detect(rgb), key=lambda face: -face.box.area)[:MOST_FACES]
    shape = (rgb.shape[0], rgb.shape[1])
    return [Seen(ref, shape, face, cut(rgb, square_box(face.box, CROP_MARGIN), CROP_SIDE_PX)) for face in faces]


class _Unfit(Exception):
    """A picture that is none, or not one to learn from; says why."""


def _look_at_picture(path: Path, detector: Detector) -> list[Seen]:
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise _Unfit("not a readable picture")
    found = _candidates(FrameRef(0, 0.0), np.ascontiguousarray(bgr[:, :, ::-1], np.uint8), detector)
    if not found:
        raise _Unfit("no face found")
    if is_mono(found[0].crop) and is_engraving(found[0].crop):
        raise _Unfit("engraving or coarse print")
    return found[:1]


def _alone(source: Source, seen: Seen) -> _Shot:
    mask = None if source.label == FAKE else np.zeros((CROP_SIDE_PX, CROP_SIDE_PX), np.bool_)
    return _Shot(seen, seen.crop, seen.square, mask)


def _beside(
    root: Path, fake: Source, seen: list[Seen], stride: int, how: Cutting, detector: Detector, remarks: list[Remark]
) -> list[_Shot]:
    """A fake's crops in the squares of its original; by itself, without masks, where the original gave none or has another shape."""
    if not seen:
        remarks.append(Remark(fake.video, "its original gave no crops: mask unknown", kept=True))
        return [_alone(fake, one) for one in _look(root, fake, False, how, detector, remarks)[0]]
    try:
        shots = list(_aligned(root / fake.video, seen, stride))
    except BadVideo as error:
        remarks.append(Remark(fake.video, "unreadable", str(error)))
        return []
    except _Unfit as error:
        remarks.append(Remark(fake.video, "another shape than its original: own boxes, mask unknown", str(error), True))
        return [_alone(fake, one) for one in _look(root, fake, False, how, detector, remarks)[0]]
    changed = [shot for shot in shots if shot.mask is None or shot.mask.any()]
    _remark_on(fake, seen, shots, changed, remarks)
    return changed


def _remark_on(fake: Source, seen: list[Seen], shots: list[_Shot], changed: list[_Shot], remarks: list[Remark]) -> None:
    def remark(reason: str, count: int) -> None:
        remarks.append(Remark(fake.video, reason, f"{count} of {len(seen)} frames", kept=bool(changed)))

    if len(shots) < len(seen):
        remark("frames that do not line up with the original's, left out", len(seen) - len(shots))
    if len(changed) < len(shots):
        remark("frames whose face equals the original's, left out", len(shots) - len(changed))
    if any(shot.mask is None for shot in shots):
        remark("another size than its original: box scaled, mask unknown", len(changed))


def _aligned(path: Path, seen: list[Seen], stride: int) -> Iterator[_Shot]:
    """The squares of an original cut out of the same frames of its fake. Raises _Unfit where the two differ in shape."""
    at = {one.ref.index: one for one in seen}
    half_a_frame = _frame_seconds(seen) / 2
    for ref, rgb in _frames(path, stride, max(at) // stride + 1):
        one = at.get(ref.index)
        if one is None or abs(one.ref.pts_seconds - ref.pts_seconds) > half_a_frame:
            continue
        height, width = one.shape
        across, down = rgb.shape[1] / width, rgb.shape[0] / height
        if abs(across / down - 1) > SAME_SHAPE:
            raise _Unfit(f"{rgb.shape[1]} x {rgb.shape[0]} px, the original {width} x {height}")
        square = one.square
        scaled = inside(
            Box(square.x0 * across, square.y0 * down, square.x1 * across, square.y1 * down), rgb.shape[0], rgb.shape[1]
        )
        crop = cut(rgb, scaled, CROP_SIDE_PX)
        mask = manipulated(one.crop, crop) if rgb.shape[:2] == one.shape else None
        yield _Shot(one, crop, scaled, mask)


def _frame_seconds(seen: list[Seen]) -> float:
    """Mean duration of a frame between the first and the last seen; endless where there is but one to judge by."""
    frames = seen[-1].ref.index - seen[0].ref.index
    return (seen[-1].ref.pts_seconds - seen[0].ref.pts_seconds) / frames if frames else float("inf")


def _store(out: Path, name: str, source: Source, shots: list[_Shot]) -> list[dict[str, Any]]:
    if not shots:
        return []
    masks = [shot.mask for shot in shots if shot.mask is not None] if source.label == FAKE else []
    shard = write_shard(out, name, np.stack([shot.crop for shot in shots]), np.stack(masks) if masks else None)
    return [_row(source, shot, shard, number) for number, shot in enumerate(shots)]


def _row(source: Source, shot: _Shot, shard: str, number: int) -> dict[str, Any]:
    seen, original_square = shot.seen, shot.seen.square
    scale = CROP_SIDE_PX / original_square.width
    corner = np.array([original_square.x0, original_square.y0])
    box, points, square = seen.face.box, seen.face.points, shot.square
    return asdict(source) | {
        "frame_index": seen.ref.index,
        "pts_seconds": seen.ref.pts_seconds,
        "shard": shard,
        "row": number,
        "crop_box": [square.x0, square.y0, square.x1, square.y1],
        "face_box": ((np.array([[box.x0, box.y0], [box.x1, box.y1]]) - corner) * scale).ravel().tolist(),
        "points": None if points is None else ((points - corner) * scale).ravel().tolist(),
        "mask_area": None if shot.mask is None else float(shot.mask.mean()),
        "mono": is_mono(shot.crop),
    }


def _finish(out: Path, unit: Unit, rows: list[dict[str, Any]], remarks: list[Remark]) -> None:
    folder = out / UNITS
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / f"{unit.name}.parquet")
    # last: its presence says that the unit is whole
    part = folder / f"{unit.name}.part"
    part.write_text(json.dumps([asdict(remark) for remark in remarks]), encoding="utf-8")
    part.replace(folder / f"{unit.name}.json")


@lru_cache(maxsize=1)
def _detector(name: str, side_px: int, confidence: float) -> Detector:
    """Opened once in each worker process."""
    return open_detector(name, side_px, confidence, threads=1)
