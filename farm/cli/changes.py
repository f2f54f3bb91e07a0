"""What a scan says otherwise than another one of the same videos, as a table, JSON, CSV or Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from farm.cli.printing import cell, console, table, verdict_cell

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from farm.db.results import VerdictChange, VideoChange


def write_changes(session: Session, after: int, before: int, written: str, path: Path | None) -> None:
    """One row per submitted path of scan `after`; below a table also the sums.

    Raises BadInput for an unknown scan, or where parquet has no file.
    """
    from farm.cli.tables import opened, write_rows
    from farm.db.results import change_counts, scan_changes
    from farm.report.tables import CHANGES

    counts = change_counts(session, after, before)
    changes = scan_changes(session, after, before)
    if written != "table":
        write_rows(map(asdict, changes), CHANGES, written, path)
        return
    with opened(path) as file:
        screen = console(file)
        screen.print(changes_table(changes))
        screen.print(f"\nscan {after} against scan {before}: {in_words(counts)}", soft_wrap=True)


def changes_table(changes: Iterable[VideoChange]) -> Table:
    """One line per submitted path."""
    columns = ("name", "before", "after", "p_fake before", "p_fake after", "models")
    rows = (
        (
            cell(change.name),
            verdict_cell(change.verdict_before),
            verdict_cell(change.verdict_after) if change.changed else cell("same", "dim"),
            change.p_fake_before,
            change.p_fake_after,
            cell(" -> ".join(dict.fromkeys((change.model_before, change.model_after)))),
        )
        for change in changes
    )
    return table(None, columns, rows)


def in_words(counts: Sequence[VerdictChange]) -> str:
    """The sums as a sentence: how many verdicts are others now, from which to which, and how many stayed."""
    moved = [each for each in counts if each.verdict_before != each.verdict_after]
    stayed = [each for each in counts if each.verdict_before == each.verdict_after]
    changed, total = sum(each.videos for each in moved), sum(each.videos for each in counts)
    words = f"{changed} of {total} verdicts changed"
    if moved:
        words += ": " + ", ".join(f"{each.videos} {each.verdict_before} -> {each.verdict_after}" for each in moved)
    if stayed:
        words += "; the same: " + ", ".join(f"{each.videos} {each.verdict_after}" for each in stayed)
    return words
