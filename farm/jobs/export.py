"""Masks out of the object store as arrays a notebook can open: one .npy per video, and a table that says where each mask lies.

Letters in shapes: N masks of one video, S side of a crop. Memory does not grow with N.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session

from farm.contracts import CROP_SIDE_PX
from farm.db.models import CropBatchRow, FaceScore, Scan, ScanPath, ScanVideo, Video
from farm.db.session import database_errors
from farm.errors import BadInput, BadObject
from farm.farm import Farm
from farm.media.masks import decode_masks

COLUMNS = (
    FaceScore.frame_index,
    FaceScore.pts_seconds,
    FaceScore.track,
    FaceScore.p_fake,
    FaceScore.mask_area,
    FaceScore.crop_x0,
    FaceScore.crop_y0,
    FaceScore.crop_x1,
    FaceScore.crop_y1,
)
"""Of the table beside the masks: line i (from 0, after the header) is mask i; the crop's square is in source pixels."""

NAME_CHARACTERS = 80


def export_masks(farm: Farm, scan_id: int, folder: Path) -> Iterator[Path]:
    """Write NAME.npy, bool (N, S, S), True = manipulated, and NAME.csv for each video that has masks; yields each .npy when it is whole.

    NAME is the video's own, made safe, with the start of its sha256. Raises BadInput for an unknown scan, BadObject where masks and scores
    disagree, StorageAway, DatabaseAway.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with database_errors(), farm.sessions() as session:
        if session.get(Scan, scan_id) is None:
            raise BadInput(f"there is no scan {scan_id}; `farm status` lists them")
        for video in session.execute(_videos(scan_id)).all():
            batches = _batches(session, video.id)
            if batches:
                yield _export(farm, session, batches, folder / f"{_safe(video.name)}-{video.sha256[:12]}.npy")


def _videos(scan_id: int) -> Select[Any]:
    name = select(func.min(ScanPath.name)).where(ScanPath.scan_video_id == ScanVideo.id).scalar_subquery()
    chosen = select(ScanVideo.id, Video.sha256, name.label("name")).join(Video, Video.id == ScanVideo.video_id)
    return chosen.where(ScanVideo.scan_id == scan_id).order_by(ScanVideo.id)


def _batches(session: Session, scan_video_id: int) -> Sequence[Row[int, int, str | None]]:
    masked = select(CropBatchRow.id, CropBatchRow.crops, CropBatchRow.mask_key)
    masked = masked.where(CropBatchRow.scan_video_id == scan_video_id, CropBatchRow.mask_key.is_not(None))
    return session.execute(masked.order_by(CropBatchRow.position)).all()


def _export(farm: Farm, session: Session, batches: Sequence[Row[int, int, str | None]], path: Path) -> Path:
    shape = (sum(batch.crops for batch in batches), CROP_SIDE_PX, CROP_SIDE_PX)
    unfinished = path.with_suffix(".part")
    array = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.bool_, shape=shape)
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([column.key for column in COLUMNS])
        start = 0
        for batch in batches:
            masks = decode_masks(farm.store.get(batch.mask_key))
            faces = session.execute(
                select(*COLUMNS).where(FaceScore.crop_batch_id == batch.id).order_by(FaceScore.row)
            ).all()
            if not len(masks) == len(faces) == batch.crops:
                raise BadObject(
                    f"{batch.mask_key} holds {len(masks)} masks, but {len(faces)} of {batch.crops} crops are scored"
                )
            array[start : start + len(masks)] = masks
            table.writerows(faces)
            start += len(masks)
    array.flush()
    return unfinished.replace(path)


def _safe(name: str) -> str:
    """A file name made of the letters, digits, '.', '-' and '_' of this one."""
    stem = Path(name).stem
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem)[:NAME_CHARACTERS].strip(".") or "video"
