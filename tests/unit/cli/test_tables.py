"""What the door prints of results, without a farm."""

from __future__ import annotations

import csv
import io
import json
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from farm.cli import printing
from farm.cli.embedded_scan import Scanned
from farm.cli.printing import PlainMeter, meter
from farm.cli.tables import LINES, print_scan, write_results, write_sums
from farm.db.results import DatasetSum, DaySum, VideoResult
from farm.errors import BadInput

SUMS = [DaySum(date(2026, 11, 22), 3, {"FAKE": 1, "REAL": 2}), DaySum(date(2026, 11, 23), 1, {"NO_FACE": 1})]


def result(name: str, verdict: str | None, p_fake: float | None = None) -> VideoResult:
    values: dict[str, Any] = dict.fromkeys(VideoResult.__slots__)
    return VideoResult(
        **values | {"name": name, "verdict": verdict, "p_fake": p_fake, "faces": 1, "reasons": ("Why.",)}
    )


def scanned(results: list[VideoResult]) -> Scanned:
    return Scanned(7, tuple(results), {"REAL": len(results)}, Path("/somewhere/index.html"))


def test_the_most_telling_videos_come_first_and_the_rest_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    many = [result(f"real{n}.mp4", "REAL", 0.01) for n in range(LINES)]
    print_scan(scanned([*many, result("low.mp4", "FAKE", 0.9), result("high.mp4", "FAKE", 0.99)]), Path("home"), 3.0)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["high.mp4", "low.mp4", "real0.mp4"]
    assert "… and 2 more: farm results 7 --home home" in lines
    assert lines[-1] == "report: /somewhere/index.html"


def test_a_hostile_name_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    write_results([result("a\nb[bold]\x1b[31m.mp4", "FAKE", 0.5)], "table", None)
    assert "a\\nb[bold]\\x1b[31m.mp4" in capsys.readouterr().out


def test_sums_as_json_keep_their_shape(capsys: pytest.CaptureFixture[str]) -> None:
    write_sums(SUMS, "json", None)
    first, second = json.loads(capsys.readouterr().out)
    assert first == {"day": "2026-11-22", "videos": 3, "verdicts": {"FAKE": 1, "REAL": 2}}
    assert second["verdicts"] == {"NO_FACE": 1}


def test_sums_as_csv_and_parquet_have_a_column_per_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sums(SUMS, "csv", None)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["verdicts_FAKE"], row["verdicts_REAL"], row["verdicts_NO_FACE"]) for row in rows] == [
        ("1", "2", "0"),
        ("0", "0", "1"),
    ]
    write_sums(SUMS, "parquet", tmp_path / "sums.parquet")
    assert [row["verdicts_REAL"] for row in pq.read_table(tmp_path / "sums.parquet").to_pylist()] == [2, 0]


def test_no_sums_are_an_empty_answer_in_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for written, expected in (("json", "[]\n"), ("csv", ""), ("table", "nothing yet\n")):
        write_sums([], written, None)
        assert capsys.readouterr().out == expected
    write_sums([], "table", None, none="no path has a label")
    assert capsys.readouterr().out == "no path has a label\n"


def test_parquet_needs_a_file() -> None:
    with pytest.raises(BadInput, match="--out"):
        write_results([], "parquet", None)
    with pytest.raises(BadInput, match="--out"):
        write_sums([], "parquet", None)


def test_results_go_to_a_file_as_to_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [result("a.mp4", "REAL", 0.1), result("b.mp4", None)]
    for written in ("json", "csv", "table"):
        write_results(rows, written, None)
        write_results(rows, written, tmp_path / written)
        assert (tmp_path / written).read_bytes().decode() == capsys.readouterr().out


def test_where_no_terminal_is_progress_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 1.0, 6.0, 6.0, 13.0, 20.0, 20.0])
    monkeypatch.setattr(printing.time, "monotonic", lambda: next(clock))
    told = PlainMeter()
    for done in (1, 2, 2, 3):
        told.advanced(SimpleNamespace(videos_done=done, videos_total=3, crops_done=0, crops_total=9))
    assert capsys.readouterr().err.splitlines() == [
        "2 of 3 videos decided, 0 of 9 crops scored",
        "3 of 3 videos decided, 0 of 9 crops scored",
    ]


def test_a_meter_for_a_pipe_draws_no_bars(capsys: pytest.CaptureFixture[str]) -> None:
    with meter() as told:
        assert isinstance(told, PlainMeter)
    assert capsys.readouterr().err == ""


def test_a_data_set_named_like_a_formula_is_no_formula_in_a_spreadsheet(capsys: pytest.CaptureFixture[str]) -> None:
    write_sums([DatasetSum("=1+1", 1, 1, {"FAKE": 1}, 3)], "csv", None)
    assert "\n'=1+1," in capsys.readouterr().out
