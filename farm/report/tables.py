"""Results as CSV, JSON and Parquet. Written row by row: memory does not grow with the number of results."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

Row = Mapping[str, Any]

SCHEMA = pa.schema(
    [
        ("scan", pa.int64()),
        ("position", pa.int64()),
        ("name", pa.string()),
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("label", pa.string()),
        ("verdict", pa.string()),
        ("p_fake", pa.float64()),
        ("faces", pa.int64()),
        ("tracks", pa.int64()),
        ("frames_read", pa.int64()),
        ("duration_seconds", pa.float64()),
        ("reasons", pa.list_(pa.string())),
        ("model", pa.string()),
        ("model_sha256", pa.string()),
        ("engine", pa.string()),
        ("sampling", pa.string()),
        ("recipe", pa.string()),
        ("code_version", pa.string()),
        ("state", pa.string()),
        ("error", pa.string()),
    ]
)
"""Columns of results, in order: the fields of `VideoResult`. `label` is what a manifest said, `verdict` what the farm says."""

CHANGES = pa.schema(
    [
        ("position", pa.int64()),
        ("name", pa.string()),
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("label", pa.string()),
        ("verdict_before", pa.string()),
        ("verdict_after", pa.string()),
        ("p_fake_before", pa.float64()),
        ("p_fake_after", pa.float64()),
        ("scan_before", pa.int64()),
        ("scan_after", pa.int64()),
        ("model_before", pa.string()),
        ("model_after", pa.string()),
    ]
)
"""Columns of a table of changes: the fields of `VideoChange`."""

ROWS_PER_GROUP = 4096
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def spreadsheet_safe(value: object) -> object:
    """Text that a spreadsheet would run as a formula gets an apostrophe in front (OWASP, "CSV Injection"); numbers stay."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value


def utf8_safe(value: object) -> object:
    """File names may hold bytes that are no UTF-8 (surrogates in Python): they are written as escapes, never an error."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return [utf8_safe(each) for each in value] if isinstance(value, list | tuple) else value


def _cells(row: Row, schema: pa.Schema) -> dict[str, Any]:
    return {name: utf8_safe(row[name]) for name in schema.names}


class CsvTable:
    """RFC 4180 with a header line; reasons are joined by a space."""

    def __init__(self, file: TextIO, schema: pa.Schema = SCHEMA) -> None:
        self._schema = schema
        self._writer = csv.writer(file)
        self._writer.writerow(schema.names)

    def add(self, row: Row) -> None:
        cells = (" ".join(v) if isinstance(v, list) else v for v in _cells(row, self._schema).values())
        self._writer.writerow([spreadsheet_safe(cell) for cell in cells])

    def close(self) -> None: ...


class JsonTable:
    """One array, one result per line."""

    def __init__(self, file: TextIO, schema: pa.Schema = SCHEMA) -> None:
        self._file = file
        self._schema = schema
        self._separator = "[\n"

    def add(self, row: Row) -> None:
        self._file.write(self._separator + json.dumps(_cells(row, self._schema), ensure_ascii=False, allow_nan=False))
        self._separator = ",\n"

    def close(self) -> None:
        self._file.write("[]\n" if self._separator == "[\n" else "\n]\n")


class ParquetTable:
    """Typed columns, zstd, row groups of `ROWS_PER_GROUP`."""

    def __init__(self, path: Path, schema: pa.Schema = SCHEMA) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def add(self, row: Row) -> None:
        self._rows.append(_cells(row, self._schema))
        if len(self._rows) >= ROWS_PER_GROUP:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


class Tables(AbstractContextManager["Tables"]):
    """results.csv, results.json and results.parquet in one folder, fed together."""

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        # utf-8-sig: without the mark, Excel reads UTF-8 names as Latin-1
        csv_file = self._stack.enter_context((folder / "results.csv").open("w", encoding="utf-8-sig", newline=""))
        json_file = self._stack.enter_context((folder / "results.json").open("w", encoding="utf-8", newline=""))
        self._tables = (CsvTable(csv_file), JsonTable(json_file), ParquetTable(folder / "results.parquet"))

    def add(self, row: Row) -> None:
        for table in self._tables:
            table.add(row)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            for table in self._tables:
                table.close()
