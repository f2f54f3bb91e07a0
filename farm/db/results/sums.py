"""Sums over results: by verdict, data set, day, and against the labels of a manifest.

They count submitted paths (the same bytes under two names are two results) and come from rollups, never from face scores.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, case, func, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from farm.contracts import VerdictLabel
from farm.db.models import Dataset, Model, Scan, ScanPath, ScanVideo
from farm.db.ranking import auc, eer

FAKE, REAL = VerdictLabel.FAKE.value, VerdictLabel.REAL.value

PENDING = "PENDING"
"""Stands for a verdict that is not there yet, or never will be in a cancelled scan."""

RANK = {label: rank for rank, label in enumerate(("FAKE", "UNCERTAIN", "REAL", "NO_FACE", "UNREADABLE", PENDING))}
"""The order in which verdicts are worth a reader's time, 0 first."""

CHUNK = 10_000
SECONDS_PER_DAY = 86_400


@dataclass(frozen=True, slots=True)
class DatasetSum:
    """All scans of one data set."""

    #: None for scans without one
    dataset: str | None
    scans: int
    videos: int
    #: submitted paths by verdict, PENDING included
    verdicts: dict[str, int]
    #: crops scored, each distinct video once per scan
    crops: int


@dataclass(frozen=True, slots=True)
class DaySum:
    """What was decided on one day in UTC."""

    day: date
    videos: int
    #: submitted paths by verdict
    verdicts: dict[str, int]


@dataclass(frozen=True, slots=True)
class LabelSum:
    """How one model on one engine meets the labels of a manifest. Undecided videos are counted apart, neither right nor wrong."""

    #: name@version
    model: str
    #: as the scans asked for it; a simulated card's scores are made up and stand apart
    engine: str
    #: labelled paths, once per scan that names them
    videos: int
    #: verdicts of the paths labelled FAKE, and of those labelled REAL
    labelled_fake: dict[str, int]
    labelled_real: dict[str, int]
    #: paths whose verdict is FAKE or REAL; the others are UNCERTAIN, NO_FACE, UNREADABLE or PENDING
    decided: int
    #: share of the decided whose verdict is the label; None where none is decided
    accuracy: float | None
    #: paths with a probability, on which the next two rest
    scored: int
    #: None where a label is missing among the scored
    auc: float | None
    eer: float | None


def verdict_counts(session: Session, scan_id: int) -> dict[str, int]:
    """Submitted paths of one scan by verdict, in the order of `VerdictLabel`, PENDING last; verdicts that did not occur are left out."""
    verdict = verdict_of_path()
    query = _paths(verdict, func.count()).where(ScanPath.scan_id == scan_id).group_by(verdict)
    return in_verdict_order((verdict, count) for verdict, count in session.execute(query))


def by_dataset(session: Session, scan_id: int | None = None) -> list[DatasetSum]:
    """Sums per data set by name, scans without one first; of one scan where `scan_id` is given."""
    verdict = verdict_of_path()
    query = (
        _paths(Scan.dataset_id, verdict, func.count())
        .join(Scan, Scan.id == ScanPath.scan_id)
        .group_by(Scan.dataset_id, verdict)
    )
    counts: dict[int | None, list[tuple[str | None, int]]] = defaultdict(list)
    for dataset_id, verdict_found, count in session.execute(_of_scan(query, scan_id)):
        counts[dataset_id].append((verdict_found, count))
    totals = select(Scan.dataset_id, Dataset.name, func.count(), func.sum(Scan.crops_done)).group_by(
        Scan.dataset_id, Dataset.name
    )
    rows = session.execute(_of_scan(totals.outerjoin(Dataset, Dataset.id == Scan.dataset_id), scan_id)).all()
    return [
        DatasetSum(
            name,
            scans,
            sum(count for _, count in counts[dataset_id]),
            in_verdict_order(counts[dataset_id]),
            int(crops or 0),
        )
        for dataset_id, name, scans, crops in sorted(rows, key=lambda row: (row[1] is not None, row[1] or ""))
    ]


def by_day(session: Session, scan_id: int | None = None) -> list[DaySum]:
    """Sums per day on which videos were decided, oldest first. A path that could not be had counts on the day it was submitted."""
    verdict, day = verdict_of_path(), epoch_day(func.coalesce(ScanVideo.decided_at, Scan.created_at))
    query = (
        _paths(day, verdict, func.count())
        .join(Scan, Scan.id == ScanPath.scan_id)
        .where(verdict.is_not(None))
        .group_by(day, verdict)
    )
    days: dict[int, list[tuple[str | None, int]]] = defaultdict(list)
    for number, verdict_found, count in session.execute(_of_scan(query, scan_id)):
        days[number].append((verdict_found, count))
    return [
        DaySum(
            datetime.fromtimestamp(number * SECONDS_PER_DAY, UTC).date(),
            sum(count for _, count in counts),
            in_verdict_order(counts),
        )
        for number, counts in sorted(days.items())
    ]


def by_label(session: Session, scan_id: int | None = None) -> list[LabelSum]:
    """One entry per model and engine that scanned labelled paths, by name, version and engine; their scores do not compare."""
    verdict, scored_by = verdict_of_path(), (Scan.model_id, Scan.engine)
    query = _labelled(*scored_by, ScanPath.label, verdict, func.count()).group_by(*scored_by, ScanPath.label, verdict)
    counts: dict[tuple[int, str], list[tuple[str, str | None, int]]] = defaultdict(list)
    for model_id, engine, *count in session.execute(_of_scan(query, scan_id)):
        counts[model_id, engine].append(tuple(count))
    scores: dict[tuple[int, str, str], array[float]] = defaultdict(lambda: array("d"))
    query = _labelled(*scored_by, ScanPath.label, ScanVideo.p_fake).where(ScanVideo.p_fake.is_not(None))
    for model_id, engine, label, p_fake in session.execute(_of_scan(query, scan_id).execution_options(yield_per=CHUNK)):
        scores[model_id, engine, label].append(p_fake)
    models = session.execute(
        select(Model.id, Model.name, Model.version)
        .where(Model.id.in_({model_id for model_id, _ in counts}))
        .order_by(Model.name, Model.version)
    )
    return [
        _label_sum(f"{name}@{version}", engine, found, scores[model_id, engine, FAKE], scores[model_id, engine, REAL])
        for model_id, name, version in models
        for (of_model, engine), found in sorted(counts.items(), key=lambda item: item[0])
        if of_model == model_id
    ]


def _label_sum(
    model: str, engine: str, counts: Sequence[tuple[str, str | None, int]], fake: array[float], real: array[float]
) -> LabelSum:
    decided = sum(count for _, verdict, count in counts if verdict in (FAKE, REAL))
    right = sum(count for label, verdict, count in counts if verdict == label)
    return LabelSum(
        model=model,
        engine=engine,
        videos=sum(count for *_, count in counts),
        labelled_fake=in_verdict_order((verdict, count) for label, verdict, count in counts if label == FAKE),
        labelled_real=in_verdict_order((verdict, count) for label, verdict, count in counts if label == REAL),
        decided=decided,
        accuracy=right / decided if decided else None,
        scored=len(fake) + len(real),
        auc=auc(fake, real),
        eer=eer(fake, real),
    )


def _labelled(*columns: Any) -> Select[Any]:
    return _paths(*columns).join(Scan, Scan.id == ScanPath.scan_id).where(ScanPath.label.in_((FAKE, REAL)))


def verdict_of_path() -> ColumnElement[Any]:
    """A path whose bytes could not be had is UNREADABLE and has no video."""
    return case((ScanPath.scan_video_id.is_(None), VerdictLabel.UNREADABLE.value), else_=ScanVideo.verdict)


def _paths(*columns: Any) -> Select[Any]:
    return select(*columns).select_from(ScanPath).outerjoin(ScanVideo, ScanVideo.id == ScanPath.scan_video_id)


def _of_scan(query: Any, scan_id: int | None) -> Any:
    return query if scan_id is None else query.where(Scan.id == scan_id)


def in_verdict_order(counts: Iterable[tuple[str | None, int]]) -> dict[str, int]:
    """Counts summed by verdict in the order of `VerdictLabel`, PENDING for none; zeros are left out."""
    summed: dict[str, int] = defaultdict(int)
    for verdict, count in counts:
        summed[verdict or PENDING] += count
    return {name: summed[name] for name in (*(label.value for label in VerdictLabel), PENDING) if summed[name]}


class epoch_day(FunctionElement[int]):  # noqa: N801  used as an SQL function
    """SQL expression: number of the UTC day since the epoch that a time in seconds lies in."""

    type = Integer()
    inherit_cache = True


@compiles(epoch_day, "sqlite")
def _sqlite_day(element: epoch_day, compiler: SQLCompiler, **options: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **options)} / {SECONDS_PER_DAY} AS INTEGER)"


@compiles(epoch_day, "postgresql")
def _postgresql_day(element: epoch_day, compiler: SQLCompiler, **options: Any) -> str:
    return f"CAST(floor({compiler.process(element.clauses, **options)} / {SECONDS_PER_DAY}) AS INTEGER)"
