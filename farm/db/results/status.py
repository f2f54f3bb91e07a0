"""How the farm stands: its latest scans, their rows of work by state, and what failed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from farm.contracts import VerdictLabel
from farm.db.models import CropBatchRow, Dataset, Model, Scan, ScanPath, ScanVideo, WorkState
from farm.db.results.sums import in_verdict_order


@dataclass(frozen=True, slots=True)
class FailedRow:
    """One row of work that ran out of attempts or can never work."""

    #: split (a video) or infer (a crop batch)
    queue: str
    row_id: int
    #: a path that names the video
    path: str
    attempts: int
    error: str | None


@dataclass(frozen=True, slots=True)
class ScanStatus:
    """How far one scan is."""

    scan: int
    dataset: str | None
    state: str
    model: str
    engine: str
    created_at: float
    finished_at: float | None
    #: distinct videos, and crops
    videos_total: int
    videos_done: int
    crops_total: int
    crops_done: int
    #: rows of work by state
    split: dict[str, int]
    infer: dict[str, int]
    #: distinct videos by verdict
    verdicts: dict[str, int]
    #: the first of the failed rows
    failed: tuple[FailedRow, ...]


def scan_status(session: Session, limit: int = 20, failed_rows: int = 10) -> list[ScanStatus]:
    """The latest scans, newest first, with their rows of work by state and the first failed rows of each with their errors."""
    named = select(Scan, Dataset.name, Model.name, Model.version).join(Model, Model.id == Scan.model_id)
    found = session.execute(
        named.outerjoin(Dataset, Dataset.id == Scan.dataset_id).order_by(Scan.id.desc()).limit(limit)
    ).all()
    ids = [scan.id for scan, *_ in found]
    split, infer = _states(session, ScanVideo, ids), _states(session, CropBatchRow, ids)
    return [
        ScanStatus(
            scan=scan.id,
            dataset=dataset,
            state=scan.state,
            model=f"{name}@{version}",
            engine=scan.engine,
            created_at=scan.created_at,
            finished_at=scan.finished_at,
            videos_total=scan.videos_total,
            videos_done=scan.videos_done,
            crops_total=scan.crops_total,
            crops_done=scan.crops_done,
            split=split[scan.id],
            infer=infer[scan.id],
            verdicts=in_verdict_order(
                (label.value, getattr(scan, f"videos_{label.value.lower()}")) for label in VerdictLabel
            ),
            failed=_failed(session, scan.id, failed_rows) if _failed_in(split[scan.id], infer[scan.id]) else (),
        )
        for scan, dataset, name, version in found
    ]


def _failed_in(*states: dict[str, int]) -> int:
    """Rows that failed, among counts by state."""
    return sum(counts.get(WorkState.FAILED, 0) for counts in states)


def _states(
    session: Session, work: type[ScanVideo] | type[CropBatchRow], scan_ids: Sequence[int]
) -> dict[int, dict[str, int]]:
    query = (
        select(work.scan_id, work.state, func.count())
        .where(work.scan_id.in_(scan_ids))
        .group_by(work.scan_id, work.state)
    )
    found: dict[int, dict[str, int]] = defaultdict(dict)
    for scan_id, state, count in session.execute(query):
        found[scan_id][state] = count
    return found


def _failed(session: Session, scan_id: int, limit: int) -> tuple[FailedRow, ...]:
    rows: list[FailedRow] = []
    for queue, work, video_id in (
        ("split", ScanVideo, ScanVideo.id),
        ("infer", CropBatchRow, CropBatchRow.scan_video_id),
    ):
        path = (
            select(func.min(ScanPath.path)).where(ScanPath.scan_video_id == video_id).correlate(work).scalar_subquery()
        )
        query = select(work.id, path, work.attempts, work.error).where(
            work.scan_id == scan_id, work.state == WorkState.FAILED
        )
        rows += [FailedRow(queue, *row) for row in session.execute(query.order_by(work.id).limit(limit - len(rows)))]
    return tuple(rows)
