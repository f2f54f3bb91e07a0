"""results.csv, results.json and results.parquet: the same rows, safe to open."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from farm.db.results import VideoResult
from farm.report.tables import SCHEMA, Tables, spreadsheet_safe


def row(**changes: Any) -> dict[str, Any]:
    values = dict.fromkeys(SCHEMA.names) | {
        "name": "a.mp4",
        "path": "in/a.mp4",
        "verdict": "REAL",
        "p_fake": 0.25,
        "reasons": ["One.", "Two."],
    }
    return values | changes


def write(folder: Path, *rows: dict[str, Any]) -> None:
    with Tables(folder) as tables:
        for each in rows:
            tables.add(each)


def read_csv(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "-1+cmd", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"])
def test_a_name_that_a_spreadsheet_would_run_is_defused(tmp_path: Path, name: str) -> None:
    write(tmp_path, row(name=name))
    assert read_csv(tmp_path)[0]["name"] == f"'{name}"
    assert json.loads((tmp_path / "results.json").read_text())[0]["name"] == name


def test_every_field_of_a_result_has_its_column() -> None:
    assert set(SCHEMA.names) == set(VideoResult.__slots__) - {"scan_video_id"}


def test_numbers_are_left_alone() -> None:
    assert spreadsheet_safe(-0.5) == -0.5


def test_the_three_files_hold_the_same_rows(tmp_path: Path) -> None:
    rows = [row(name=f"{n}.mp4", p_fake=n / 7, tracks=n) for n in range(7)]
    write(tmp_path, *rows)
    assert json.loads((tmp_path / "results.json").read_text()) == rows
    assert pq.read_table(tmp_path / "results.parquet").to_pylist() == rows
    assert [float(each["p_fake"]) for each in read_csv(tmp_path)] == [each["p_fake"] for each in rows]
    assert read_csv(tmp_path)[0]["reasons"] == "One. Two."


def test_newlines_quotes_and_bytes_that_are_no_text_survive(tmp_path: Path) -> None:
    write(tmp_path, row(name='two\nlines, "quoted"'), row(name="caf\udce9.mp4"))
    assert [each["name"] for each in read_csv(tmp_path)] == ['two\nlines, "quoted"', "caf\\udce9.mp4"]
    assert pq.read_table(tmp_path / "results.parquet")["name"].to_pylist() == ['two\nlines, "quoted"', "caf\\udce9.mp4"]


def test_a_scan_without_a_path_leaves_empty_tables_that_parse(tmp_path: Path) -> None:
    write(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == []
    assert read_csv(tmp_path) == []
    assert pq.read_table(tmp_path / "results.parquet").num_rows == 0


def test_many_rows_are_written_in_groups(tmp_path: Path) -> None:
    write(tmp_path, *(row(name=str(n)) for n in range(9000)))
    parquet = pq.ParquetFile(tmp_path / "results.parquet")
    assert (parquet.metadata.num_rows, parquet.metadata.num_row_groups) == (9000, 3)
