"""The last step of a video: once its split ended and every batch is scored or given up, decide and count it, inside the transaction that
brought the last piece."""

from __future__ import annotations

import json

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from farm.contracts import ModelCard, Verdict, VerdictLabel
from farm.db.models import Model, Scan, ScanState, ScanVideo, Track, WorkState
from farm.db.session import db_now
from farm.verdict import TrackScores, decide

_COUNTER = {
    VerdictLabel.FAKE: Scan.videos_fake,
    VerdictLabel.REAL: Scan.videos_real,
    VerdictLabel.UNCERTAIN: Scan.videos_uncertain,
    VerdictLabel.NO_FACE: Scan.videos_no_face,
    VerdictLabel.UNREADABLE: Scan.videos_unreadable,
}


def settle(session: Session, scan_video_id: int) -> Verdict | None:
    """Decide the video if nothing of it is outstanding, else None. The caller has updated its row, so no other can decide it meanwhile."""
    row = session.execute(
        select(
            ScanVideo.scan_id,
            ScanVideo.state,
            ScanVideo.verdict,
            ScanVideo.summary,
            ScanVideo.batches_total,
            (ScanVideo.batches_done + ScanVideo.batches_failed).label("batches_ended"),
            ScanVideo.batches_failed,
        ).where(ScanVideo.id == scan_video_id)
    ).one()
    if (
        row.verdict is not None
        or row.state != WorkState.DONE
        or row.batches_total is None
        or row.batches_ended < row.batches_total
    ):
        return None
    parts = session.execute(
        select(Track.track, Track.crops, Track.logit_sum, Track.logit_max)
        .where(Track.scan_video_id == scan_video_id)
        .order_by(Track.track)
    )
    tracks = [TrackScores(part.track, part.crops, part.logit_sum, part.logit_max) for part in parts]
    verdict = decide(tracks, card_of(session, row.scan_id), summary=row.summary, batches_failed=row.batches_failed)
    return write_verdict(session, row.scan_id, scan_video_id, verdict)


def settle_unreadable(session: Session, scan_id: int, scan_video_id: int, error: str) -> Verdict | None:
    """Decide the video as UNREADABLE for this reason, whatever was scored before; None where it was decided already."""
    summary = session.execute(select(ScanVideo.summary).where(ScanVideo.id == scan_video_id)).scalar_one()
    verdict = decide([], card_of(session, scan_id), summary=summary, error=error)
    return write_verdict(session, scan_id, scan_video_id, verdict)


def write_verdict(session: Session, scan_id: int, scan_video_id: int, verdict: Verdict) -> Verdict | None:
    """Store the verdict once and count it in its scan; None where another was stored before."""
    written = session.execute(
        update(ScanVideo)
        .where(ScanVideo.id == scan_video_id, ScanVideo.verdict.is_(None))
        .values(verdict=verdict.label, p_fake=verdict.p_fake, reasons=list(verdict.reasons), decided_at=db_now())
        .returning(ScanVideo.id)
        .execution_options(synchronize_session=False)
    )
    if written.scalar_one_or_none() is None:
        return None
    for track, p_fake in verdict.track_scores.items():
        session.execute(
            update(Track)
            .where(Track.scan_video_id == scan_video_id, Track.track == track)
            .values(p_fake=p_fake)
            .execution_options(synchronize_session=False)
        )
    counter = _COUNTER[verdict.label]
    session.execute(
        update(Scan)
        .where(Scan.id == scan_id)
        .values({counter: counter + 1, Scan.videos_done: Scan.videos_done + 1})
        .execution_options(synchronize_session=False)
    )
    finish_scan(session, scan_id)
    return verdict


def finish_scan(session: Session, scan_id: int) -> None:
    """Close the scan if it is fully submitted and every video is decided."""
    session.execute(
        update(Scan)
        .where(Scan.id == scan_id, Scan.state == ScanState.ACTIVE, Scan.videos_done >= Scan.videos_total)
        .values(state=ScanState.DONE, finished_at=db_now())
        .execution_options(synchronize_session=False)
    )


def card_of(session: Session, scan_id: int) -> ModelCard:
    """The model card that this scan is judged by."""
    card = session.execute(
        select(Model.card).join(Scan, Scan.model_id == Model.id).where(Scan.id == scan_id)
    ).scalar_one()
    return ModelCard.from_json(json.dumps(card))
