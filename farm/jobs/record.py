"""Results into SQL, exactly once: every write is guarded by the lease, and counting happens in the transaction that stores the result.

Objects come first, rows last, so a row never names an object that is not there. Locks are taken in one order (work row, scan video, tracks,
scan), so recorders of one video wait for each other rather than deadlock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import case, func, insert, select, update
from sqlalchemy.orm import Session

from farm.contracts import Crop, ModelCard, Predictions, Verdict
from farm.db.models import CropBatchRow, FaceScore, Scan, ScanVideo, Track, Video, WorkState
from farm.db.session import database_errors
from farm.farm import Farm
from farm.jobs.claim import Lease, LeaseLost, extend, held_by
from farm.jobs.settle import settle, settle_unreadable
from farm.jobs.upsert import insert_into
from farm.verdict import calibrate

_ENDED: dict[str, Any] = {"lease_owner": None, "lease_until": None}
_ROWS = {"synchronize_session": False}


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A crop batch whose object is stored."""

    #: 0-based number within its video
    position: int
    crops: int
    object_key: str


@dataclass(frozen=True, slots=True)
class Scored:
    """What an engine said about one stored batch."""

    crops: Sequence[Crop]
    predictions: Predictions
    #: object with the masks, already stored
    mask_key: str
    #: engine name, device, precision, seconds
    scored_by: dict[str, Any]


def record_split_batch(farm: Farm, lease: Lease, batch: StoredBatch) -> None:
    """Make one stored batch of the leased video ready to score and renew the lease. A batch recorded before stays as it is.

    Raises LeaseLost, and then nothing was stored.
    """
    record_split_batches(farm, lease, [batch])


def record_split_batches(farm: Farm, lease: Lease, batches: Sequence[StoredBatch]) -> None:
    """As `record_split_batch`, for several in one transaction."""
    with database_errors(), farm.sessions.begin() as session:
        if not extend(farm, session, lease):
            raise LeaseLost(f"video row {lease.row_id} was taken over")
        scan_id = session.execute(select(ScanVideo.scan_id).where(ScanVideo.id == lease.row_id)).scalar_one()
        rows = [
            {
                "scan_id": scan_id,
                "scan_video_id": lease.row_id,
                "position": b.position,
                "crops": b.crops,
                "object_key": b.object_key,
            }
            for b in batches
        ]
        stored = insert_into(session, CropBatchRow).on_conflict_do_nothing().returning(CropBatchRow.crops)
        crops = sum(session.execute(stored, rows).scalars())
        if crops:
            _count_crops(session, lease.row_id, scan_id, crops)


def _count_crops(session: Session, scan_video_id: int, scan_id: int, crops: int) -> None:
    video = update(ScanVideo).where(ScanVideo.id == scan_video_id).values(crops_total=ScanVideo.crops_total + crops)
    scan = update(Scan).where(Scan.id == scan_id).values(crops_total=Scan.crops_total + crops)
    session.execute(video.execution_options(**_ROWS))
    session.execute(scan.execution_options(**_ROWS))


def finish_split(
    farm: Farm, lease: Lease, summary: dict[str, Any], info: dict[str, Any] | None = None
) -> Verdict | None:
    """End the split of the leased video and decide it if no batch is outstanding. `info` describes the video itself.

    Raises LeaseLost, and then nothing was stored.
    """
    with database_errors(), farm.sessions.begin() as session:
        total = select(func.count()).where(CropBatchRow.scan_video_id == lease.row_id).scalar_subquery()
        ended = (
            update(ScanVideo)
            .where(*held_by(lease))
            .values(state=WorkState.DONE, summary=summary, batches_total=total, error=None, **_ENDED)
            .returning(ScanVideo.video_id)
            .execution_options(**_ROWS)
        )
        video_id = session.execute(ended).scalar_one_or_none()
        if video_id is None:
            raise LeaseLost(f"video row {lease.row_id} was taken over")
        if info is not None:
            session.execute(
                update(Video)
                .where(Video.id == video_id, Video.info.is_(None))
                .values(info=info)
                .execution_options(**_ROWS)
            )
        return settle(session, lease.row_id)


def fail_split(farm: Farm, lease: Lease, error: str, *, state: WorkState = WorkState.FAILED) -> Verdict | None:
    """Give the leased video up for good: UNREADABLE with this reason. Its batches that nobody scored yet are cancelled.

    Raises LeaseLost, and then nothing was stored.
    """
    with database_errors(), farm.sessions.begin() as session:
        ended = (
            update(ScanVideo)
            .where(*held_by(lease))
            .values(state=state, error=error, **_ENDED)
            .returning(ScanVideo.scan_id)
            .execution_options(**_ROWS)
        )
        scan_id = session.execute(ended).scalar_one_or_none()
        if scan_id is None:
            raise LeaseLost(f"video row {lease.row_id} was taken over")
        session.execute(
            update(CropBatchRow)
            .where(
                CropBatchRow.scan_video_id == lease.row_id, CropBatchRow.state.in_((WorkState.READY, WorkState.LEASED))
            )
            .values(state=WorkState.CANCELLED, **_ENDED)
            .execution_options(**_ROWS)
        )
        return settle_unreadable(session, scan_id, lease.row_id, error)


def record_scores(farm: Farm, lease: Lease, scored: Scored, card: ModelCard) -> Verdict | None:
    """Store the scores of the leased batch, its tracks' and its scan's rollups, and the verdict if it was the video's last batch.

    Raises LeaseLost, and then nothing was stored.
    """
    with database_errors(), farm.sessions.begin() as session:
        ended = (
            update(CropBatchRow)
            .where(*held_by(lease))
            .values(state=WorkState.DONE, mask_key=scored.mask_key, scored_by=scored.scored_by, error=None, **_ENDED)
            .returning(CropBatchRow.scan_id, CropBatchRow.scan_video_id)
            .execution_options(**_ROWS)
        )
        row = session.execute(ended).one_or_none()
        if row is None:
            raise LeaseLost(f"crop batch {lease.row_id} was taken over")
        crops = len(scored.crops)
        video = update(ScanVideo).where(ScanVideo.id == row.scan_video_id)
        counts = {
            ScanVideo.batches_done: ScanVideo.batches_done + 1,
            ScanVideo.crops_done: ScanVideo.crops_done + crops,
        }
        session.execute(video.values(counts).execution_options(**_ROWS))
        session.execute(insert(FaceScore), _score_rows(lease.row_id, row.scan_video_id, scored, card))
        _add_to_tracks(session, row.scan_video_id, scored)
        session.execute(
            update(Scan)
            .where(Scan.id == row.scan_id)
            .values(crops_done=Scan.crops_done + crops)
            .execution_options(**_ROWS)
        )
        return settle(session, row.scan_video_id)


def fail_batch(farm: Farm, lease: Lease, error: str) -> Verdict | None:
    """Give the leased batch up for good; it counts towards the video's end, and the verdict's reasons will say so.

    Raises LeaseLost, and then nothing was stored.
    """
    with database_errors(), farm.sessions.begin() as session:
        ended = (
            update(CropBatchRow)
            .where(*held_by(lease))
            .values(state=WorkState.FAILED, error=error, **_ENDED)
            .returning(CropBatchRow.scan_video_id)
            .execution_options(**_ROWS)
        )
        scan_video_id = session.execute(ended).scalar_one_or_none()
        if scan_video_id is None:
            raise LeaseLost(f"crop batch {lease.row_id} was taken over")
        video = (
            update(ScanVideo).where(ScanVideo.id == scan_video_id).values(batches_failed=ScanVideo.batches_failed + 1)
        )
        session.execute(video.execution_options(**_ROWS))
        return settle(session, scan_video_id)


def _score_rows(batch_id: int, scan_video_id: int, scored: Scored, card: ModelCard) -> list[dict[str, Any]]:
    logits, areas = scored.predictions.logits.tolist(), scored.predictions.mask_area.tolist()
    return [
        {
            "crop_batch_id": batch_id,
            "scan_video_id": scan_video_id,
            "row": row,
            "track": crop.track,
            "frame_index": crop.frame.index,
            "pts_seconds": crop.frame.pts_seconds,
            "x0": crop.face_box.x0,
            "y0": crop.face_box.y0,
            "x1": crop.face_box.x1,
            "y1": crop.face_box.y1,
            "crop_x0": crop.crop_box.x0,
            "crop_y0": crop.crop_box.y0,
            "crop_x1": crop.crop_box.x1,
            "crop_y1": crop.crop_box.y1,
            "confidence": crop.confidence,
            "logit": logits[row],
            "p_fake": calibrate(logits[row], card),
            "mask_area": areas[row],
        }
        for row, crop in enumerate(scored.crops)
    ]


def _add_to_tracks(session: Session, scan_video_id: int, scored: Scored) -> None:
    """Add the batch to its tracks' rollups, in order of track so that two recorders cannot deadlock."""
    numbers = np.array([crop.track for crop in scored.crops])
    pts = np.array([crop.frame.pts_seconds for crop in scored.crops], np.float64)
    logits, areas = scored.predictions.logits.astype(np.float64), scored.predictions.mask_area.astype(np.float64)
    rows = []
    for track in np.unique(numbers).tolist():
        mine = numbers == track
        rows.append(
            {
                "scan_video_id": scan_video_id,
                "track": track,
                "crops": int(mine.sum()),
                "logit_sum": float(logits[mine].sum()),
                "logit_max": float(logits[mine].max()),
                "mask_area_sum": float(areas[mine].sum()),
                "first_pts_seconds": float(pts[mine].min()),
                "last_pts_seconds": float(pts[mine].max()),
            }
        )
    added = insert_into(session, Track)
    new = added.excluded
    merged = {
        "crops": Track.crops + new.crops,
        "logit_sum": Track.logit_sum + new.logit_sum,
        "logit_max": case((new.logit_max > Track.logit_max, new.logit_max), else_=Track.logit_max),
        "mask_area_sum": Track.mask_area_sum + new.mask_area_sum,
        "first_pts_seconds": case(
            (new.first_pts_seconds < Track.first_pts_seconds, new.first_pts_seconds), else_=Track.first_pts_seconds
        ),
        "last_pts_seconds": case(
            (new.last_pts_seconds > Track.last_pts_seconds, new.last_pts_seconds), else_=Track.last_pts_seconds
        ),
    }
    session.execute(added.on_conflict_do_update(index_elements=["scan_video_id", "track"], set_=merged), rows)
