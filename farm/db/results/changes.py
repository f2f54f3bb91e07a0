"""What two scans of the same videos say: before and after, path by path, and summed up. A rescan's earlier scan is the usual other one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, select
from sqlalchemy.orm import Session, aliased

from farm.contracts import VerdictLabel
from farm.db.models import Scan, ScanPath, ScanVideo, Video
from farm.db.results.sums import PENDING, RANK, verdict_of_path
from farm.db.results.videos import CHUNK, scan_facts

ABSENT = "ABSENT"
"""Stands for the verdict of a scan that does not hold a video."""

_RANK = RANK | {ABSENT: len(RANK)}


@dataclass(frozen=True, slots=True)
class VideoChange:
    """One submitted path of the later scan, with what both scans say of its bytes."""

    #: in the later scan, 0-based order of submission
    position: int
    name: str
    path: str
    sha256: str | None
    #: what the manifest said: FAKE, REAL or None
    label: str | None
    #: a verdict, PENDING while undecided, or ABSENT where the earlier scan does not hold these bytes
    verdict_before: str
    verdict_after: str
    #: calibrated probabilities in [0, 1], each by its own model; None where nothing was scored
    p_fake_before: float | None
    p_fake_after: float | None
    scan_before: int
    scan_after: int
    #: name@version
    model_before: str
    model_after: str

    @property
    def changed(self) -> bool:
        """Whether the verdict is another one."""
        return self.verdict_before != self.verdict_after


@dataclass(frozen=True, slots=True)
class VerdictChange:
    """How many submitted paths of the later scan went from one verdict to another, or kept theirs."""

    verdict_before: str
    verdict_after: str
    videos: int


def rescan_of(session: Session, scan_id: int) -> int | None:
    """The scan that this one repeats; None where it repeats none."""
    return session.execute(select(Scan.rescan_of).where(Scan.id == scan_id)).scalar_one_or_none()


def scan_changes(session: Session, after: int, before: int) -> Iterator[VideoChange]:
    """One entry per submitted path of scan `after` in the order of submission, beside what scan `before` says; fetched in pieces.

    Raises BadInput where there is no such scan.
    """
    was, now = (f"{facts.name}@{facts.version}" for facts in (scan_facts(session, before), scan_facts(session, after)))
    last = -1
    scans: dict[str, Any] = {"scan_before": before, "scan_after": after, "model_before": was, "model_after": now}
    while rows := session.execute(_piece(after, before, last)).mappings().all():
        for row in rows:
            yield VideoChange(**row, **scans)
        last = rows[-1]["position"]


def change_counts(session: Session, after: int, before: int) -> list[VerdictChange]:
    """Paths of scan `after` by both verdicts, changed ones first. Raises BadInput where there is no such scan."""
    for scan_id in (before, after):
        scan_facts(session, scan_id)
    verdicts = (_verdict_before(), _verdict_after())
    rows = session.execute(_both(after, before, *verdicts, func.count()).group_by(*verdicts))
    return sorted((VerdictChange(*row) for row in rows), key=_order)


def _order(change: VerdictChange) -> tuple[bool, int, int]:
    same = change.verdict_before == change.verdict_after
    return same, _RANK[change.verdict_before], _RANK[change.verdict_after]


_EARLIER, _EARLIER_PATH = aliased(ScanVideo), aliased(ScanPath)


def _both(after: int, before: int, *columns: Any) -> Select[Any]:
    """Paths of the later scan beside the earlier scan's row of the same bytes; bytes that none could have, by path and place."""
    lost = and_(
        _EARLIER_PATH.scan_id == before,
        _EARLIER_PATH.position == ScanPath.position,
        _EARLIER_PATH.path == ScanPath.path,
        _EARLIER_PATH.scan_video_id.is_(None),
    )
    return (
        select(*columns)
        .select_from(ScanPath)
        .outerjoin(ScanVideo, ScanVideo.id == ScanPath.scan_video_id)
        .outerjoin(_EARLIER, and_(_EARLIER.scan_id == before, _EARLIER.video_id == ScanVideo.video_id))
        .outerjoin(_EARLIER_PATH, lost)
        .where(ScanPath.scan_id == after)
    )


def _verdict_after() -> ColumnElement[Any]:
    return func.coalesce(verdict_of_path(), PENDING)


def _verdict_before() -> ColumnElement[Any]:
    return case(
        (_EARLIER.id.is_not(None), func.coalesce(_EARLIER.verdict, PENDING)),
        (_EARLIER_PATH.id.is_not(None), VerdictLabel.UNREADABLE.value),
        else_=ABSENT,
    )


def _piece(after: int, before: int, last: int) -> Select[Any]:
    path = (ScanPath.position, ScanPath.name, ScanPath.path, Video.sha256, ScanPath.label)
    found = (
        _verdict_before().label("verdict_before"),
        _verdict_after().label("verdict_after"),
        _EARLIER.p_fake.label("p_fake_before"),
        ScanVideo.p_fake.label("p_fake_after"),
    )
    return (
        _both(after, before, *path, *found)
        .outerjoin(Video, Video.id == ScanVideo.video_id)
        .where(ScanPath.position > last)
        .order_by(ScanPath.position)
        .limit(CHUNK)
    )
