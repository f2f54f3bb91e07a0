"""The last step of a video: once its split ended and every batch is scored or given up, decide and count it, inside the transaction that
brought the last piece."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, select, update

from farm.contracts import ModelCard, Verdict, VerdictLabel
from farm.db.models import ScanState, WorkState
from farm.db.session import db_now
from farm.jobs.tables import MODELS, SCAN_VIDEOS, SCANS, TRACKS
from farm.verdict import TrackScores, decide

STANDING = (
    SCAN_VIDEOS.c.id,
    SCAN_VIDEOS.c.scan_id,
    SCAN_VIDEOS.c.state,
    SCAN_VIDEOS.c.verdict,
    SCAN_VIDEOS.c.summary,
    SCAN_VIDEOS.c.batches_total,
    SCAN_VIDEOS.c.batches_done,
    SCAN_VIDEOS.c.batches_failed,
)
"""What has to be known of a video to settle it; returned by the UPDATE that brought its latest piece."""

_COUNTER = {
    VerdictLabel.FAKE: SCANS.c.videos_fake,
    VerdictLabel.REAL: SCANS.c.videos_real,
    VerdictLabel.UNCERTAIN: SCANS.c.videos_uncertain,
    VerdictLabel.NO_FACE: SCANS.c.videos_no_face,
    VerdictLabel.UNREADABLE: SCANS.c.videos_unreadable,
}
_PARTS = (
    select(TRACKS.c.track, TRACKS.c.crops, TRACKS.c.logit_sum, TRACKS.c.logit_max)
    .where(TRACKS.c.scan_video_id == bindparam("video"))
    .order_by(TRACKS.c.track)
)
_CARD = select(MODELS.c.card).join(SCANS, SCANS.c.model_id == MODELS.c.id).where(SCANS.c.id == bindparam("scan"))
_WRITE = (
    update(SCAN_VIDEOS)
    .where(SCAN_VIDEOS.c.id == bindparam("video"), SCAN_VIDEOS.c.verdict.is_(None))
    .values(
        verdict=bindparam("label"), p_fake=bindparam("probability"), reasons=bindparam("words"), decided_at=db_now()
    )
    .returning(SCAN_VIDEOS.c.id)
)
_WRITE_TRACK = (
    update(TRACKS)
    .where(TRACKS.c.scan_video_id == bindparam("video"), TRACKS.c.track == bindparam("number"))
    .values(p_fake=bindparam("probability"))
)
_COUNT = {
    label: update(SCANS)
    .where(SCANS.c.id == bindparam("scan"))
    .values({counter: counter + 1, SCANS.c.videos_done: SCANS.c.videos_done + 1})
    .returning(SCANS.c.videos_done, SCANS.c.videos_total)
    for label, counter in _COUNTER.items()
}
_FINISH = (
    update(SCANS)
    .where(
        SCANS.c.id == bindparam("scan"), SCANS.c.state == ScanState.ACTIVE, SCANS.c.videos_done >= SCANS.c.videos_total
    )
    .values(state=ScanState.DONE, finished_at=db_now())
)


def settle(connection: Connection, video: RowMapping, card: ModelCard | None = None) -> Verdict | None:
    """Decide the video if nothing of it is outstanding, else None.

    `video` holds STANDING as the caller's UPDATE returned it, so its row is locked and no other can decide it meanwhile. `card` is that
    of the scan's model; read where it is not given.
    """
    if video["verdict"] is not None or video["state"] != WorkState.DONE or video["batches_total"] is None:
        return None
    if video["batches_done"] + video["batches_failed"] < video["batches_total"]:
        return None
    parts = connection.execute(_PARTS, {"video": video["id"]})
    tracks = [TrackScores(part.track, part.crops, part.logit_sum, part.logit_max) for part in parts]
    card = card or card_of(connection, video["scan_id"])
    verdict = decide(tracks, card, summary=video["summary"], batches_failed=video["batches_failed"])
    return write_verdict(connection, video, verdict)


def settle_unreadable(connection: Connection, video: RowMapping, error: str) -> Verdict | None:
    """Decide the video as UNREADABLE for this reason, whatever was scored before; None where it was decided already."""
    verdict = decide([], card_of(connection, video["scan_id"]), summary=video["summary"], error=error)
    return write_verdict(connection, video, verdict)


def write_verdict(connection: Connection, video: RowMapping, verdict: Verdict) -> Verdict | None:
    """Store the verdict once and count it in its scan; None where another was stored before."""
    values: dict[str, Any] = {"label": verdict.label, "probability": verdict.p_fake, "words": list(verdict.reasons)}
    if connection.execute(_WRITE, {"video": video["id"], **values}).scalar_one_or_none() is None:
        return None
    if verdict.track_scores:
        scores = verdict.track_scores.items()
        connection.execute(_WRITE_TRACK, [{"video": video["id"], "number": n, "probability": p} for n, p in scores])
    counts = connection.execute(_COUNT[verdict.label], {"scan": video["scan_id"]}).one()
    if counts.videos_done >= counts.videos_total:
        finish_scan(connection, video["scan_id"])
    return verdict


def finish_scan(connection: Connection, scan_id: int) -> None:
    """Close the scan if it is fully submitted and every video is decided."""
    connection.execute(_FINISH, {"scan": scan_id})


def card_of(connection: Connection, scan_id: int) -> ModelCard:
    """The model card that this scan is judged by."""
    return ModelCard.from_values(connection.execute(_CARD, {"scan": scan_id}).scalar_one())
