"""Results into SQL, exactly once: every write is guarded by the lease, and counting happens in the transaction that stores the result.

Objects come first, rows last, so a row never names an object that is not there. Locks are taken in one order (work row, scan video, tracks,
scan), so recorders of one video wait for each other rather than deadlock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, RowMapping, Update, bindparam, case, func, insert, select, update

from farm.contracts import Crop, ModelCard, Predictions, Verdict
from farm.db.models import CropBatchRow, ScanVideo, WorkState
from farm.db.session import db_now
from farm.farm import Farm
from farm.jobs.claim import ENDED, Lease, LeaseLost, held
from farm.jobs.settle import STANDING, settle, settle_unreadable
from farm.jobs.tables import CROP_BATCHES, FACE_SCORES, SCAN_VIDEOS, SCANS, TRACKS, VIDEOS
from farm.jobs.upsert import insert_for
from farm.verdict import calibrate


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


def record_split_batches(farm: Farm, lease: Lease, batches: Sequence[StoredBatch]) -> None:
    """Make stored batches of the leased video ready to score and renew the lease. A batch recorded before stays as it is.

    Raises LeaseLost, and then nothing was stored.
    """
    with farm.write() as connection:
        _add_batches(farm, connection, lease, batches)


def finish_split(
    farm: Farm,
    lease: Lease,
    summary: dict[str, Any],
    info: dict[str, Any] | None = None,
    batches: Sequence[StoredBatch] = (),
) -> Verdict | None:
    """End the split of the leased video, with its last batches, and decide it if none is outstanding. `info` describes the video itself.

    Raises LeaseLost, and then nothing was stored.
    """
    with farm.write() as connection:
        if batches:
            _add_batches(farm, connection, lease, batches)
        video = _first(connection, _END_SPLIT, lease, {"what_was_seen": summary})
        if info is not None:
            connection.execute(_DESCRIBE_VIDEO, {"video": video["video_id"], "what_it_is": info})
        return settle(connection, video)


def fail_split(farm: Farm, lease: Lease, error: str, *, state: WorkState = WorkState.FAILED) -> Verdict | None:
    """Give the leased video up for good: UNREADABLE with this reason. Its batches that nobody scored yet are cancelled.

    Raises LeaseLost, and then nothing was stored.
    """
    with farm.write() as connection:
        video = _first(connection, _GIVE_UP_SPLIT, lease, {"new_state": state, "why": error})
        connection.execute(_CALL_OFF_BATCHES, {"video": lease.row_id})
        return settle_unreadable(connection, video, error)


def record_scores(farm: Farm, lease: Lease, scored: Scored, card: ModelCard) -> Verdict | None:
    """Store the scores of the leased batch, its tracks' and its scan's rollups, and the verdict if it was the video's last batch.

    Raises LeaseLost, and then nothing was stored.
    """
    crops = len(scored.crops)
    # made before the transaction begins: on SQLite everybody who writes waits for its end
    scores = _score_rows(lease.row_id, scored, card)
    tracks = _track_rows(scores)
    with farm.write() as connection:
        stored = {"masks_at": scored.mask_key, "by_what": scored.scored_by}
        batch = _first(connection, _END_BATCH, lease, stored)
        counts = {"video": batch["scan_video_id"], "done": 1, "failed": 0, "new_crops": crops}
        video = connection.execute(_COUNT_BATCH, counts).mappings().one()
        for row in (*scores, *tracks):
            row["scan_video_id"] = video["id"]
        connection.execute(_ADD_SCORES, scores)
        connection.execute(_add_to_tracks(connection.dialect.name), tracks)
        connection.execute(_COUNT_SCORED, {"scan": video["scan_id"], "new_crops": crops})
        return settle(connection, video, card)


def fail_batch(farm: Farm, lease: Lease, error: str) -> Verdict | None:
    """Give the leased batch up for good; it counts towards the video's end, and the verdict's reasons will say so.

    Raises LeaseLost, and then nothing was stored.
    """
    with farm.write() as connection:
        batch = _first(connection, _GIVE_UP_BATCH, lease, {"why": error})
        counts = {"video": batch["scan_video_id"], "done": 0, "failed": 1, "new_crops": 0}
        return settle(connection, connection.execute(_COUNT_BATCH, counts).mappings().one())


def _first(connection: Connection, move: Update, lease: Lease, values: dict[str, Any]) -> RowMapping:
    """Move the leased row; what the statement returns. Raises LeaseLost where it is leased no more."""
    row = connection.execute(move, lease.holds | values).mappings().one_or_none()
    if row is None:
        what = "video row" if lease.work is ScanVideo else "crop batch"
        raise LeaseLost(f"{what} {lease.row_id} was taken over")
    return row


def _add_batches(farm: Farm, connection: Connection, lease: Lease, batches: Sequence[StoredBatch]) -> None:
    crops = sum(batch.crops for batch in batches)
    values = {"for_seconds": farm.settings.lease_seconds, "new_crops": crops}
    video = _first(connection, _GROW_SPLIT, lease, values)
    rows = [
        {
            "scan_id": video["scan_id"],
            "scan_video_id": lease.row_id,
            "position": batch.position,
            "crops": batch.crops,
            "object_key": batch.object_key,
        }
        for batch in batches
    ]
    new = sum(connection.execute(_add_batch_rows(connection.dialect.name), rows).scalars())
    if new != crops:
        connection.execute(_CORRECT_SPLIT, {"video": lease.row_id, "known_crops": crops - new})
    if new:
        connection.execute(_COUNT_FOUND, {"scan": video["scan_id"], "new_crops": new})


def _score_rows(batch_id: int, scored: Scored, card: ModelCard) -> list[dict[str, Any]]:
    """A row per crop; which video it is of is known later."""
    logits, areas = scored.predictions.logits.tolist(), scored.predictions.mask_area.tolist()
    return [
        {
            "crop_batch_id": batch_id,
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


def _track_rows(scores: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the batch's score rows add to its tracks, in order of track so that two recorders cannot deadlock."""
    of_track: dict[int, list[dict[str, Any]]] = {}
    for score in scores:
        of_track.setdefault(score["track"], []).append(score)
    return [
        {
            "track": track,
            "crops": len(mine),
            "logit_sum": math.fsum(score["logit"] for score in mine),
            "logit_max": max(score["logit"] for score in mine),
            "mask_area_sum": math.fsum(score["mask_area"] for score in mine),
            "first_pts_seconds": min(score["pts_seconds"] for score in mine),
            "last_pts_seconds": max(score["pts_seconds"] for score in mine),
        }
        for track, mine in sorted(of_track.items())
    ]


_GROW_SPLIT = (
    update(SCAN_VIDEOS)
    .where(*held(ScanVideo))
    .values(
        lease_until=db_now() + bindparam("for_seconds"), crops_total=SCAN_VIDEOS.c.crops_total + bindparam("new_crops")
    )
    .returning(SCAN_VIDEOS.c.scan_id)
)
_CORRECT_SPLIT = (
    update(SCAN_VIDEOS)
    .where(SCAN_VIDEOS.c.id == bindparam("video"))
    .values(crops_total=SCAN_VIDEOS.c.crops_total - bindparam("known_crops"))
)
_COUNT_FOUND = (
    update(SCANS)
    .where(SCANS.c.id == bindparam("scan"))
    .values(crops_total=SCANS.c.crops_total + bindparam("new_crops"))
)
_COUNT_SCORED = (
    update(SCANS).where(SCANS.c.id == bindparam("scan")).values(crops_done=SCANS.c.crops_done + bindparam("new_crops"))
)
_END_SPLIT = (
    update(SCAN_VIDEOS)
    .where(*held(ScanVideo))
    .values(state=WorkState.DONE, summary=bindparam("what_was_seen"), error=None, **ENDED)
    .values(
        batches_total=select(func.count()).where(CROP_BATCHES.c.scan_video_id == bindparam("row_id")).scalar_subquery()
    )
    .returning(*STANDING, SCAN_VIDEOS.c.video_id)
)
_DESCRIBE_VIDEO = (
    update(VIDEOS)
    .where(VIDEOS.c.id == bindparam("video"), VIDEOS.c.info.is_(None))
    .values(info=bindparam("what_it_is"))
)
_GIVE_UP_SPLIT = (
    update(SCAN_VIDEOS)
    .where(*held(ScanVideo))
    .values(state=bindparam("new_state"), error=bindparam("why"), **ENDED)
    .returning(*STANDING)
)
_CALL_OFF_BATCHES = (
    update(CROP_BATCHES)
    .where(
        CROP_BATCHES.c.scan_video_id == bindparam("video"),
        CROP_BATCHES.c.state.in_((WorkState.READY, WorkState.LEASED)),
    )
    .values(state=WorkState.CANCELLED, **ENDED)
)
_END_BATCH = (
    update(CROP_BATCHES)
    .where(*held(CropBatchRow))
    .values(state=WorkState.DONE, mask_key=bindparam("masks_at"), scored_by=bindparam("by_what"), error=None, **ENDED)
    .returning(CROP_BATCHES.c.scan_video_id)
)
_GIVE_UP_BATCH = (
    update(CROP_BATCHES)
    .where(*held(CropBatchRow))
    .values(state=WorkState.FAILED, error=bindparam("why"), **ENDED)
    .returning(CROP_BATCHES.c.scan_video_id)
)
_COUNT_BATCH = (
    update(SCAN_VIDEOS)
    .where(SCAN_VIDEOS.c.id == bindparam("video"))
    .values(
        batches_done=SCAN_VIDEOS.c.batches_done + bindparam("done"),
        batches_failed=SCAN_VIDEOS.c.batches_failed + bindparam("failed"),
        crops_done=SCAN_VIDEOS.c.crops_done + bindparam("new_crops"),
    )
    .returning(*STANDING)
)
_ADD_SCORES = insert(FACE_SCORES)


@cache
def _add_batch_rows(dialect: str) -> Any:
    return insert_for(dialect, CROP_BATCHES).on_conflict_do_nothing().returning(CROP_BATCHES.c.crops)


@cache
def _add_to_tracks(dialect: str) -> Any:
    added, old = insert_for(dialect, TRACKS), TRACKS.c
    new = added.excluded
    merged = {
        "crops": old.crops + new.crops,
        "logit_sum": old.logit_sum + new.logit_sum,
        "logit_max": case((new.logit_max > old.logit_max, new.logit_max), else_=old.logit_max),
        "mask_area_sum": old.mask_area_sum + new.mask_area_sum,
        "first_pts_seconds": case(
            (new.first_pts_seconds < old.first_pts_seconds, new.first_pts_seconds), else_=old.first_pts_seconds
        ),
        "last_pts_seconds": case(
            (new.last_pts_seconds > old.last_pts_seconds, new.last_pts_seconds), else_=old.last_pts_seconds
        ),
    }
    return added.on_conflict_do_update(index_elements=["scan_video_id", "track"], set_=merged)
