"""One scan by an embedded farm, from start to report: what `farm scan` and `farm demo` share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from farm.cli.printing import Meter, meter
from farm.db.results import VideoResult, scan_results, unfinished_scans, verdict_counts
from farm.embedded import EmbeddedFarm
from farm.errors import NothingToScan
from farm.farm import Farm
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
    with EmbeddedFarm(home, engine=wanted.engine) as embedded:
        for scan_id in _scans(embedded.farm, wanted):
            with meter() as told:
                embedded.wait(scan_id, on_progress=told.advanced)
            folder = wanted.report or home / "reports" / f"scan-{scan_id}"
            report = write_report(embedded.farm, scan_id, folder)
            with embedded.farm.sessions() as session:
                yield Scanned(scan_id, verdict_counts(session, scan_id), report.resolve())
