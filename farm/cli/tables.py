"""Results as a reader or a program wants them: a table on the terminal, JSON, CSV, Parquet."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.table import Table
from rich.text import Text

from farm.cli.changes import in_words
from farm.cli.printing import cell, console, table, verdict_cell
from farm.db.results.sums import PENDING, RANK
from farm.errors import BadInput

if TYPE_CHECKING:
    from farm.cli.embedded_scan import Scanned
    from farm.db.results import ScanStatus, VideoResult
    from farm.jobs.models import RegisteredModel

LINES = 40
"""Videos in the table that ends a scan; `farm results` shows all."""
NOTHING_YET = "nothing yet"
"""What a table of sums says that has no row."""


def print_scan(scanned: Scanned, home: Path, seconds: float) -> None:
    """What a finished scan found, the most telling first, and where the rest is."""
    screen = console()
    shown = sorted(scanned.results, key=_telling)[:LINES]
    screen.print(results_table(shown))
    left = len(scanned.results) - len(shown)
    if left:
        screen.print(f"… and {left} more: farm results {scanned.scan_id} --home {home}")
    counts = ", ".join(f"{n} {verdict}" for verdict, n in scanned.verdicts.items())
    screen.print(f"\nscan {scanned.scan_id}: {len(scanned.results)} videos in {seconds:.1f} s: {counts}")
    if scanned.before is not None:
        told = f"against scan {scanned.before}: {in_words(scanned.changes)}"
        screen.print(
            f"{told} (farm results {scanned.scan_id} --against {scanned.before} --home {home})", soft_wrap=True
        )
    here = Path.cwd()
    report = scanned.report.relative_to(here) if scanned.report.is_relative_to(here) else scanned.report
    screen.print(Text(f"report: {report}"), soft_wrap=True)


def _telling(result: VideoResult) -> tuple[int, float]:
    return RANK[result.verdict or PENDING], -(result.p_fake or 0.0)


def results_table(results: Iterable[VideoResult]) -> Table:
    """One line per submitted path."""
    columns = ("name", "verdict", "p_fake", "faces", "tracks", "why")
    rows = (
        (cell(r.name), verdict_cell(r.verdict), r.p_fake, r.faces, r.tracks, r.reasons[0] if r.reasons else "")
        for r in results
    )
    return table(None, columns, rows)


def write_results(results: Iterable[VideoResult], written: str, path: Path | None) -> None:
    """One row per submitted path, in the format asked for, to a file or stdout. Raises BadInput where parquet has no file."""
    from farm.report.tables import SCHEMA

    if written == "table":
        with opened(path) as file:
            console(file).print(results_table(results))
        return
    write_rows((asdict(r) | {"reasons": list(r.reasons)} for r in results), SCHEMA, written, path)


def write_rows(rows: Iterable[dict[str, Any]], schema: Any, written: str, path: Path | None) -> None:
    """Rows with the columns of this Arrow schema as json, csv or parquet, one at a time. Raises BadInput where parquet has no file."""
    from farm.report.tables import CsvTable, JsonTable, ParquetTable

    with ExitStack() as stack:
        if written == "parquet":
            sink: CsvTable | JsonTable | ParquetTable = ParquetTable(_for_parquet(path), schema)
        else:
            sink = (CsvTable if written == "csv" else JsonTable)(stack.enter_context(opened(path)), schema)
        for row in rows:
            sink.add(row)
        sink.close()


def write_sums(sums: Sequence[Any], written: str, path: Path | None, none: str = NOTHING_YET) -> None:
    """Rows that sum results up, in the format asked for, to a file or stdout; a table without a row says `none`.

    Raises BadInput where parquet has no file.
    """
    rows = [asdict(each) for each in sums]
    if written == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist([_flat(row) for row in rows]), _for_parquet(path))
        return
    with opened(path) as file:
        if written == "json":
            file.write(json.dumps(rows, ensure_ascii=False, default=str) + "\n")
        elif written == "table":
            console(file).print(rows_table(rows) if rows else none)
        elif rows:
            from farm.report.tables import spreadsheet_safe

            table = csv.DictWriter(file, list(_flat(rows[0])))
            table.writeheader()
            table.writerows({name: spreadsheet_safe(value) for name, value in _flat(row).items()} for row in rows)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """The row with a column per verdict in place of its counts by verdict, whether it occurred or not."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= {f"{name}_{verdict}": value.get(verdict, 0) for verdict in RANK}
        else:
            flat[name] = value
    return flat


@contextmanager
def opened(path: Path | None) -> Iterator[TextIO]:
    """The file to write text into, or stdout where there is none."""
    if path is None:
        yield sys.stdout
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        yield file


def _for_parquet(path: Path | None) -> Path:
    if path is None:
        raise BadInput("parquet is no text: name a file with --out")
    return path


def status_tables(scans: Sequence[ScanStatus]) -> Iterator[Table]:
    """One line per scan, then one per failed row."""
    columns = (
        "scan",
        "dataset",
        "state",
        "videos",
        "crops",
        "split",
        "infer",
        "verdicts",
        "model",
        "engine",
        "submitted",
    )
    yield table(
        None,
        columns,
        (
            (
                scan.scan,
                scan.dataset,
                scan.state,
                f"{scan.videos_done} of {scan.videos_total}",
                f"{scan.crops_done} of {scan.crops_total}",
                _shown("split", scan.split),
                _shown("infer", scan.infer),
                _shown("verdicts", scan.verdicts),
                scan.model,
                scan.engine,
                f"{datetime.fromtimestamp(scan.created_at, UTC):%Y-%m-%d %H:%M:%SZ}",
            )
            for scan in scans
        ),
    )
    failed = [
        (scan.scan, row.queue, row.row_id, row.path, row.attempts, row.error) for scan in scans for row in scan.failed
    ]
    if failed:
        yield table("\nfailed", ("scan", "queue", "row", "name", "attempts", "error"), failed)


def models_table(models: Iterable[RegisteredModel]) -> Table:
    """One line per registered model."""
    from farm.jobs.models import by_and_when

    columns = ("id", "model", "state", "since", "width", "threshold", "false positives", "notes")
    rows = (
        (m.id, m.named, m.state, by_and_when(m), m.card.width, m.card.threshold, m.card.false_positive_rate, _worth(m))
        for m in models
    )
    return table(None, columns, rows)


def facts_table(facts: dict[str, Any]) -> Table:
    """One line per fact; what a fact holds stands below it, indented. Moments are in UTC."""
    return table(None, ("fact", "value"), _fact_rows(facts))


def _fact_rows(facts: dict[str, Any], indent: str = "") -> Iterator[tuple[str, str]]:
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{name}", ""
            yield from _fact_rows(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield from _fact_rows({f"{name} {number}": each for number, each in enumerate(value, 1)}, indent)
        elif value not in (None, "", [], (), {}):
            yield f"{indent}{name}", _fact(name, value)


def _fact(name: str, value: object) -> str:
    if name.endswith("_at") and isinstance(value, float):
        return f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M:%SZ}"
    if isinstance(value, list | tuple):
        return " ".join(_fact("", each) for each in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _worth(model: RegisteredModel) -> str:
    return "a demonstration: its words are weak hints" if model.card.demonstration else ""


def rows_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Any rows as a table; every row has the keys of the first."""
    return table(None, list(rows[0]), ([_shown(name, value) for name, value in row.items()] for row in rows))


def _shown(name: str, value: object) -> object:
    if name == "verdict":
        return verdict_cell(None if value is None else str(value))
    if isinstance(value, dict):
        return ", ".join(f"{count} {key}" for key, count in value.items() if count)
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return value
