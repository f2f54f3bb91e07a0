"""One scan by an embedded farm, from start to report: what `farm scan` and `farm demo` share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from farm.cli.options import opened_farm
from farm.cli.printing import meter
from farm.db.models import Scan, ScanState
from farm.db.results import VerdictChange, VideoResult, change_counts, rescan_of, scan_results, verdict_counts
from farm.db.session import database_errors
from farm.embedded import EmbeddedFarm
from farm.errors import NothingToScan
from farm.farm import Farm
from farm.jobs.progress import progress, unfinished
from farm.jobs.recipe import recipe_of
from farm.jobs.sources import Source, expand
from farm.jobs.submit import submit
from farm.report import write_report


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to scan and how; empty means the farm's setting. No paths: finish what is unfinished."""

    paths: tuple[str, ...]
    dataset: str | None = None
    engine: str = ""
    model: str = ""
    sampling: str = ""
    report: Path | None = None


@dataclass(frozen=True, slots=True)
class Scanned:
    """A scan that has ended."""

    scan_id: int
    results: tuple[VideoResult, ...]
    #: submitted paths by verdict, verdicts that did not occur left out
    verdicts: dict[str, int]
    #: its index.html
    report: Path
    #: the scan that it repeats, and how the verdicts differ; None and nothing where it repeats none
    before: int | None = None
    changes: tuple[VerdictChange, ...] = ()


def run_embedded(home: Path, wanted: Wanted) -> Iterator[Scanned]:
    """Start the farm in `home`, scan what is wanted, write the report, stop the farm. Raises FarmError, NothingToScan before it starts."""
    if not wanted.paths:
        for engine, waiting in _waiting(home).items():
            yield from _run(home, replace(wanted, engine=engine), waiting)
        return
    yield from _run(home, wanted, [], _sources(wanted.paths))


def _run(home: Path, wanted: Wanted, waiting: list[int], sources: Iterator[Source] | None = None) -> Iterator[Scanned]:
    """One farm of one engine: its worker runs no other."""
    chosen: dict[str, Any] = {"engine": wanted.engine, "model": wanted.model}
    with EmbeddedFarm(home, **{name: value for name, value in chosen.items() if value}) as embedded:
        for scan_id in [_submit(embedded.farm, sources, wanted)] if sources else waiting:
            with meter() as told:
                embedded.wait(scan_id, told.advanced)
            yield _ended(embedded.farm, scan_id, wanted.report or home / "reports" / f"scan-{scan_id}")


def _sources(paths: tuple[str, ...]) -> Iterator[Source]:
    """What the paths name; the first is looked for at once. Raises NothingToScan, BadInput."""
    sources = expand(paths)
    return chain([next(sources)], sources)


def _waiting(home: Path) -> dict[str, list[int]]:
    """The scans of this home that were handed in and have not ended, by engine. Raises NothingToScan."""
    waiting: dict[str, list[int]] = {}
    with opened_farm(home) as farm, database_errors(), farm.sessions() as session:
        for scan_id in unfinished(farm):
            if progress(farm, scan_id).state == ScanState.ACTIVE:
                waiting.setdefault(session.get_one(Scan, scan_id).engine, []).append(scan_id)
    if not waiting:
        raise NothingToScan(f"no scan waits to be finished in {home}")
    return waiting


def _submit(farm: Farm, sources: Iterator[Source], wanted: Wanted) -> int:
    with meter() as told:
        return submit(
            farm,
            sources,
            dataset=wanted.dataset,
            model=wanted.model,
            engine=wanted.engine,
            recipe=recipe_of(farm, model=wanted.model, sampling=wanted.sampling),
            on_progress=told.submitted,
        )


def _ended(farm: Farm, scan_id: int, folder: Path) -> Scanned:
    report = write_report(farm, scan_id, folder).resolve()
    with database_errors(), farm.sessions() as session:
        results, verdicts = tuple(scan_results(session, scan_id)), verdict_counts(session, scan_id)
        before = rescan_of(session, scan_id)
        changes = () if before is None else tuple(change_counts(session, scan_id, before))
    return Scanned(scan_id, results, verdicts, report, before, changes)
