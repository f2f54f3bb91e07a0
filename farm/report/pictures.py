"""Fetches what the pictures of one video are made of: crop batches and masks from the store, frames from the stored video."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from farm.contracts import CROP_SIDE_PX
from farm.db.models import CropBatchRow
from farm.db.results import ScoredFace, face_scores
from farm.errors import FarmError
from farm.media.batches import decode_batch
from farm.media.masks import decode_masks
from farm.media.one_frame import frame_at
from farm.report.evidence import (
    Chooser,
    CropPicture,
    FramePicture,
    crop_picture,
    frame_picture,
    thumbnail,
    whole_frames,
)
from farm.report.gather import VideoFacts
from farm.storage import ObjectStore

FACES_PER_FRAME = 40
"""A crowd's frame shows this many faces, the highest scores first."""

Where = tuple[int, int]
"""Crop batch id and row."""
Looked = tuple[NDArray[np.uint8], NDArray[np.bool_]]
"""(S, S, 3) uint8 RGB pixels and (S, S) bool mask of one crop."""


@dataclass(slots=True)
class Pictures:
    """All pictures of a page, and plain sentences about those that could not be had."""

    crops: list[CropPicture] = field(default_factory=list)
    frames: list[FramePicture] = field(default_factory=list)
    thumbnail: str | None = None
    complaints: list[str] = field(default_factory=list)


def take_pictures(
    store: ObjectStore, session: Session, video: VideoFacts, chooser: Chooser, threshold: float, max_frame_pixels: int
) -> Pictures:
    """The pictures of what was chosen. What the store does not give becomes a complaint, never an error: the verdict stands without."""
    pictures = Pictures()
    crops = chooser.crops()
    within = _faces_of(session, video, {scored.frame_index for scored in crops})
    frames = whole_frames(crops, within)
    looked = _look_up(store, session, [*crops, *(face for at in frames for face in within[at.frame_index])], pictures)
    for scored in crops:
        if found := looked.get((scored.crop_batch_id, scored.row)):
            pictures.crops.append(crop_picture(scored, *found, threshold))
            pictures.thumbnail = pictures.thumbnail or thumbnail(found[0])
    masks = {where: mask for where, (_, mask) in looked.items()}
    if frames:
        try:
            with store.get_file(video.object_key) as path:
                for chosen in frames:
                    rgb = frame_at(path, chosen.pts_seconds, max_frame_pixels)
                    pictures.frames.append(
                        frame_picture(rgb, chosen.pts_seconds, within[chosen.frame_index], masks, threshold)
                    )
        except FarmError as error:
            pictures.complaints.append(f"A whole frame could not be shown: {error}")
    return pictures


def _faces_of(session: Session, video: VideoFacts, frames: Collection[int]) -> dict[int, list[ScoredFace]]:
    """The faces of each of these frames, highest score first."""
    within: dict[int, list[ScoredFace]] = {index: [] for index in frames}
    for face in face_scores(session, video.scan_video_id) if frames else ():
        if face.frame_index in within:
            within[face.frame_index].append(face)
    return {index: sorted(faces, key=lambda f: -f.p_fake)[:FACES_PER_FRAME] for index, faces in within.items()}


def _look_up(
    store: ObjectStore, session: Session, wanted: Iterable[ScoredFace], pictures: Pictures
) -> dict[Where, Looked]:
    """Pixels and masks of the wanted crops, one batch in memory at a time."""
    rows: dict[int, set[int]] = {}
    for scored in wanted:
        rows.setdefault(scored.crop_batch_id, set()).add(scored.row)
    found: dict[Where, Looked] = {}
    for batch_id, chosen in rows.items():
        keys = session.execute(
            select(CropBatchRow.object_key, CropBatchRow.mask_key).where(CropBatchRow.id == batch_id)
        ).one()
        try:
            pixels = decode_batch(store.get(keys.object_key)).pixels
            masks = (
                decode_masks(store.get(keys.mask_key))
                if keys.mask_key
                else np.zeros((len(pixels), CROP_SIDE_PX, CROP_SIDE_PX), np.bool_)
            )
            found |= {(batch_id, row): (pixels[row].copy(), masks[row].copy()) for row in chosen}
        except (FarmError, IndexError) as error:
            if not pictures.complaints:
                pictures.complaints.append(f"Some face pictures could not be shown: {error}")
    return found
