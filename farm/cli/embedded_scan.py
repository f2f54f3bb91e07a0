"""One scan by an embedded farm, from start to report: what `farm scan` and `farm demo` share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from farm.cli.printing import meter
from farm.db.results import verdict_counts
from farm.embedded import EmbeddedFarm
from farm.errors import NothingToScan
from farm.farm import Farm
from farm.jobs.progress import unfinished
from farm.jobs.recipe import recipe_of
from farm.jobs.sources import expand
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
    #: submitted paths by verdict, verdicts that did not occur left out
    verdicts: dict[str, int]
    #: its index.html
    report: Path


def run_embedded(home: Path, wanted: Wanted) -> Iterator[Scanned]:
    """Start the farm in `home`, scan what is wanted, write the report, stop the farm. Raises FarmError."""
    chosen = {name: value for name, value in (("engine", wanted.engine), ("model", wanted.model)) if value}
    with EmbeddedFarm(home, **chosen) as embedded:
        for scan_id in _scans(embedded.farm, wanted):
            with meter() as told:
                embedded.wait(scan_id, lambda now, told=told: told.advanced(now))
            folder = wanted.report or home / "reports" / f"scan-{scan_id}"
            report = write_report(embedded.farm, scan_id, folder)
            with embedded.farm.sessions() as session:
                counts = verdict_counts(session, scan_id)
            yield Scanned(scan_id, {verdict: n for verdict, n in counts.items() if n}, report.resolve())


def _scans(farm: Farm, wanted: Wanted) -> list[int]:
    """The new scan, or those that wait to be finished."""
    if not wanted.paths:
        waiting = unfinished(farm)
        if not waiting:
            raise NothingToScan("no scan waits to be finished here")
        return waiting
    with meter() as told:
        return [
            submit(
                farm,
                expand(wanted.paths),
                dataset=wanted.dataset,
                model=wanted.model,
                engine=wanted.engine,
                recipe=recipe_of(farm, model=wanted.model, sampling=wanted.sampling),
                on_progress=told.submitted,
            )
        ]
