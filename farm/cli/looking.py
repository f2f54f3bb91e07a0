"""Commands that look at what a farm has found: status, results, report, masks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from farm.cli.exits import EXIT_CODES
from farm.cli.options import Home, ScanId, opened_farm
from farm.errors import BadInput


class Format(StrEnum):
    """How results are written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


class By(StrEnum):
    """What results are summed up by."""

    DATASET = "dataset"
    LABEL = "label"
    DAY = "day"
    CHANGE = "change"


OutFolder = Annotated[Path, typer.Option("--out", help="Folder to write into; made if missing.", file_okay=False)]


def status(home: Home = None) -> None:
    """Scans, how far they are, and the rows that failed, with their errors."""
    from farm.cli.printing import console
    from farm.cli.tables import status_tables
    from farm.db.models import CardState, WorkState
    from farm.db.results import scan_status
    from farm.db.session import database_errors
    from farm.jobs.cards import list_cards

    with opened_farm(home) as farm:
        with database_errors(), farm.sessions() as session:
            scans = scan_status(session)
        cards = list_cards(farm)
    for table in status_tables(scans) if scans else ("no scan yet",):
        console().print(table)
    waiting = sum(scan.infer.get(WorkState.READY, 0) for scan in scans if scan.engine == "vart")
    if waiting and not any(card.worker and card.state == CardState.READY for card in cards):
        print(f"{waiting} crop batches wait for a card, and no card takes work: see `farm cards list`")


def results(
    scan_id: Annotated[
        int | None, typer.Argument(metavar="SCAN", help="Default: the latest scan; with --by: all scans.", min=1)
    ] = None,
    home: Home = None,
    written: Annotated[Format, typer.Option("--format", help="How to write them.")] = Format.TABLE,
    by: Annotated[
        By | None, typer.Option("--by", help="Sum up; by label also accuracy, AUC and EER; change needs --against.")
    ] = None,
    against: Annotated[
        int | None,
        typer.Option("--against", metavar="SCAN", help="Show what changed since this scan of the same videos.", min=1),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write; parquet needs one. Default: stdout.", dir_okay=False)
    ] = None,
) -> None:
    """One row per submitted path, or sums over them."""
    from farm.cli.changes import write_changes
    from farm.cli.tables import NOTHING_YET, write_results, write_sums
    from farm.db import results as read
    from farm.db.session import database_errors

    if (by is By.CHANGE and against is None) or (against is not None and by not in (None, By.CHANGE)):
        raise typer.BadParameter(
            "--by change and --against belong together: farm results SCAN --against EARLIER --by change"
        )
    with opened_farm(home) as farm, database_errors(), farm.sessions() as session:
        if by is not None and by is not By.CHANGE:
            if scan_id is not None:
                read.scan_facts(session, scan_id)
            sums: dict[By, Callable[..., Sequence[Any]]] = {
                By.DATASET: read.by_dataset,
                By.LABEL: read.by_label,
                By.DAY: read.by_day,
            }
            where = "" if scan_id is None else f" of scan {scan_id}"
            unlabelled = f"no path{where} has a label: submit a CSV manifest with the columns path,label"
            write_sums(sums[by](session, scan_id), written.value, out, unlabelled if by is By.LABEL else NOTHING_YET)
            return
        latest = scan_id or next((scan.scan for scan in read.scan_status(session, limit=1)), None)
        if latest is None:
            raise BadInput("this farm has no scan yet")
        if against is None:
            write_results(read.scan_results(session, latest), written.value, out)
        elif by is None:
            write_changes(session, latest, against, written.value, out)
        else:
            write_sums(read.change_counts(session, latest, against), written.value, out)


def report(scan_id: ScanId, out: OutFolder, home: Home = None) -> None:
    """Write a scan's report: index.html, a page per video, results.csv, .json and .parquet."""
    from farm.report import write_report

    with opened_farm(home) as farm:
        print(write_report(farm, scan_id, out))


masks = typer.Typer(help="Masks as arrays.", no_args_is_help=True)


@masks.command("export", epilog=EXIT_CODES)
def export(scan_id: ScanId, out: OutFolder, home: Home = None) -> None:
    """Write each video's masks as NAME-HASH.npy, bool (N, 224, 224), True = manipulated, and a .csv whose row i says where mask i lies."""
    from farm.jobs.export import export_masks

    with opened_farm(home) as farm:
        files = 0
        for path in export_masks(farm, scan_id, out):
            print(path)
            files += 1
    print(f"{files} videos with masks in {out}", file=sys.stderr)
