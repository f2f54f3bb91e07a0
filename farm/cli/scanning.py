"""Commands that put videos in: demo, scan, submit, rescan, cancel."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli.options import (
    DEFAULT_HOME,
    AsJson,
    DatasetName,
    EngineName,
    Home,
    MaybePaths,
    ModelName,
    Paths,
    Priority,
    Sampling,
    ScanId,
    opened_farm,
)

if TYPE_CHECKING:
    from farm.cli.embedded_scan import Scanned, Wanted

EmbeddedHome = Annotated[
    Path, typer.Option("--home", help="Folder the embedded farm lives in; made if missing.", file_okay=False)
]
ReportFolder = Annotated[
    Path | None, typer.Option("--report", help="Where the report goes. Default: in the farm's folder.", file_okay=False)
]


def demo(
    folder: Annotated[Path, typer.Argument(help="Where clips, farm and report go.", file_okay=False)] = Path("demo"),
    as_json: AsJson = False,
) -> None:
    """Make a few sample clips on the spot, scan them, show the verdicts, stop everything."""
    from farm.cli.embedded_scan import Wanted
    from farm.samples import write_samples

    clips = folder / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    print(f"making sample clips in {clips} …", file=sys.stderr, flush=True)
    write_samples(clips)
    wanted = Wanted(paths=(str(clips),), dataset="demo", report=folder / "report")
    _scan(folder / "farm", wanted, as_json)


def scan(
    paths: MaybePaths = None,
    home: EmbeddedHome = DEFAULT_HOME,
    dataset: DatasetName = None,
    engine: EngineName = "",
    model: ModelName = "",
    sampling: Sampling = "",
    report: ReportFolder = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Finish the scans that were interrupted or submitted here.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Scan videos on this machine: start an embedded farm, scan, print the verdicts, stop it."""
    if bool(paths) == resume:
        raise typer.BadParameter("name what to scan, or --resume what was interrupted (not both)")
    from farm.cli.embedded_scan import Wanted

    _scan(home, Wanted(tuple(paths or ()), dataset, engine, model, sampling, report), as_json)


def _scan(home: Path, wanted: Wanted, as_json: bool) -> None:
    from farm.cli.embedded_scan import run_embedded

    started = time.monotonic()
    try:
        for scanned in run_embedded(home, wanted):
            _print_scanned(scanned, home, time.monotonic() - started, as_json)
    except KeyboardInterrupt:
        print(f"\ninterrupted; what is done is kept. Go on with: farm scan --resume --home {home}", file=sys.stderr)
        raise


def _print_scanned(scanned: Scanned, home: Path, seconds: float, as_json: bool) -> None:
    from farm.cli.tables import print_scan

    if as_json:
        summary = {
            "scan": scanned.scan_id,
            "videos": sum(scanned.verdicts.values()),
            "verdicts": scanned.verdicts,
            "seconds": round(seconds, 3),
            "report": str(scanned.report),
        }
        if scanned.before is not None:
            summary |= {"rescan_of": scanned.before, "changes": [asdict(each) for each in scanned.changes]}
        print(json.dumps(summary), flush=True)
    else:
        print_scan(scanned, home, seconds)


def submit(
    paths: Paths,
    dataset: DatasetName = None,
    engine: EngineName = "",
    model: ModelName = "",
    sampling: Sampling = "",
    priority: Priority = 6,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Hand videos to a farm and return; its workers scan them. Folders, patterns, s3:// prefixes, a CSV manifest."""
    from farm.cli.printing import meter
    from farm.jobs.recipe import recipe_of
    from farm.jobs.sources import expand
    from farm.jobs.submit import submit as use_case

    with opened_farm(home) as farm, meter() as told:
        recipe = recipe_of(farm, model=model, sampling=sampling)
        scan_id = use_case(
            farm,
            expand(paths),
            dataset=dataset,
            model=model,
            engine=engine,
            recipe=recipe,
            priority=priority,
            on_progress=told.submitted,
        )
    _print_new(scan_id, as_json, f"scan {scan_id} submitted; {_what_next(home)}")


def rescan(
    scan_id: ScanId,
    engine: EngineName = "",
    model: ModelName = "",
    sampling: Sampling = "",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Scan the same videos again with another model, engine or sampling; what is not named stays as it was.

    `farm results NEW --against SCAN` shows what changed.
    """
    from farm.jobs.models import promoted_model
    from farm.jobs.rescan import rescan as use_case
    from farm.jobs.rescan import scanned_with

    with opened_farm(home) as farm:
        new_id = use_case(farm, scan_id, model=model, engine=engine, sampling=sampling)
        named, promoted = scanned_with(farm, new_id), promoted_model(farm)
    here = f" --home {home}" if home else ""
    if not model and promoted is not None and promoted.named != named:
        print(f"as before with {named}; {promoted.named} is promoted by now: name it with --model", file=sys.stderr)
    what_changed = f"`farm results {new_id} --against {scan_id}{here}` shows what changed"
    _print_new(
        new_id, as_json, f"scan {new_id} repeats scan {scan_id} with {named}; {_what_next(home)}, {what_changed}"
    )


def cancel(scan_id: ScanId, home: Home = None) -> None:
    """Stop a scan: nothing of it starts any more, what is decided stays."""
    from farm.jobs.cancel import cancel as use_case

    with opened_farm(home) as farm:
        stopped = use_case(farm, scan_id)
    print(f"scan {scan_id} is cancelled" if stopped else f"scan {scan_id} had ended already")


def _what_next(home: Path | None) -> str:
    """An embedded farm works only while a command runs it; any other has workers of its own."""
    return f"`farm scan --resume --home {home}` works on it" if home else "`farm status` shows how far it is"


def _print_new(scan_id: int, as_json: bool, sentence: str) -> None:
    print(json.dumps({"scan": scan_id}) if as_json else sentence, flush=True)
