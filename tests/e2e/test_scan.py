"""`farm scan` on the sample clips and every kind of bad input at once: contracts of what is printed, and nobody disturbs another."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import bad_clips
import numpy as np
import pyarrow.parquet as pq
import pytest
from command_line import Scanned

VERDICTS = {"FAKE", "REAL", "UNCERTAIN", "NO_FACE", "UNREADABLE"}
REQUIRED = {
    "name",
    "sha256",
    "verdict",
    "p_fake",
    "faces",
    "tracks",
    "frames_read",
    "duration_seconds",
    "reasons",
    "model",
    "engine",
}


def test_the_last_line_is_one_json_object_that_adds_up(scanned: Scanned) -> None:
    summary = scanned.summary
    assert set(summary) == {"scan", "videos", "verdicts", "seconds", "report"}
    assert isinstance(summary["scan"], int) and summary["seconds"] > 0
    assert set(summary["verdicts"]) <= VERDICTS
    assert summary["videos"] == sum(summary["verdicts"].values()) == len(scanned.results)
    assert Path(summary["report"]).is_file()


def test_every_result_has_what_the_contract_names(scanned: Scanned) -> None:
    for row in scanned.results:
        assert set(row) >= REQUIRED
        assert row["verdict"] in VERDICTS
        assert row["p_fake"] is None or 0 <= row["p_fake"] <= 1
        assert isinstance(row["reasons"], list) and row["reasons"], f"{row['name']} has no reason"
        assert row["engine"].startswith("onnx")
    assert Counter(row["verdict"] for row in scanned.results) == scanned.summary["verdicts"]


def test_every_submitted_path_has_its_own_row(scanned: Scanned, clips: Path) -> None:
    files = [
        path
        for path in clips.rglob("*")
        if not path.is_dir() and path.suffix in (".mp4", ".gif", ".mov", ".mkv", ".webm", ".avi")
    ]
    assert len(scanned.results) == len(files) + 1, "the files of the folder and the missing path"


def test_faces_are_found_and_scored_in_the_samples(scanned: Scanned) -> None:
    scored = [row for row in scanned.results if row["p_fake"] is not None]
    assert len(scored) >= 3
    assert all(row["faces"] > 0 and row["tracks"] > 0 and re.fullmatch("[0-9a-f]{64}", row["sha256"]) for row in scored)
    assert max(row["tracks"] for row in scored) >= 2, "one of the samples shows two faces in a frame"


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("empty.mp4", "empty"),
        ("text.mp4", ""),
        ("audio.mp4", "video"),
        ("huge.gif", ""),
        ("large.gif", "15000"),
        ("dangling.mp4", "No such file"),
        ("loop.mp4", ""),
        ("pipe.mp4", "not a file"),
        ("missing.mp4", "No such file"),
    ],
)
def test_what_is_no_video_is_unreadable_and_says_why(scanned: Scanned, name: str, word: str) -> None:
    row = scanned.result(name)
    assert row["verdict"] == "UNREADABLE"
    assert row["p_fake"] is None
    assert word in " ".join(row["reasons"])


@pytest.mark.parametrize(
    "name", ["whole.mp4", "one_frame.mp4", bad_clips.NEWLINES, bad_clips.LONG_NAME, str(bad_clips.DEEP)]
)
def test_a_video_without_a_face_says_so_whatever_it_is_called(scanned: Scanned, name: str) -> None:
    row = scanned.result(name)
    assert row["verdict"] == "NO_FACE"
    assert row["frames_read"] >= 1


def test_a_file_that_may_not_be_read_is_unreadable_to_who_may_not(scanned: Scanned, clips: Path) -> None:
    row = scanned.result("locked.mp4")
    allowed = os.access(clips / "locked.mp4", os.R_OK)
    assert row["verdict"] == ("NO_FACE" if allowed else "UNREADABLE")
    assert allowed or "Permission denied" in " ".join(row["reasons"])


def test_of_a_truncated_file_is_scanned_what_decodes_and_it_says_so(scanned: Scanned) -> None:
    row = scanned.result("truncated.mp4")
    assert row["verdict"] == "NO_FACE"
    assert row["frames_read"] >= 1
    assert re.search(r"damaged|truncated|cut|broken|decode", " ".join(row["reasons"]))


def test_the_same_bytes_under_many_names_are_one_video(scanned: Scanned) -> None:
    same = [
        scanned.result(name) for name in ("whole.mp4", bad_clips.NEWLINES, bad_clips.LONG_NAME, str(bad_clips.DEEP))
    ]
    assert len({row["sha256"] for row in same}) == 1
    assert len({json.dumps([row["verdict"], row["p_fake"], row["frames_read"], row["reasons"]]) for row in same}) == 1


def test_no_process_outlives_the_command(scanned: Scanned) -> None:
    assert scanned.line.left_behind() == []


def test_a_second_scan_in_the_same_home_finds_the_same(scanned: Scanned, clips: Path) -> None:
    again = scanned.line.run("scan", clips, clips / "missing.mp4", "--home", scanned.home, "--json")
    assert again.code == 0, again.err
    assert again.last_line["scan"] != scanned.summary["scan"]
    assert again.last_line["verdicts"] == scanned.summary["verdicts"]
    told = scanned.line.run("results", str(again.last_line["scan"]), "--home", scanned.home, "--format", "json")
    scores = {row["name"]: (row["verdict"], row["p_fake"], row["faces"]) for row in json.loads(told.out)}
    assert scores == {row["name"]: (row["verdict"], row["p_fake"], row["faces"]) for row in scanned.results}
    stored = [path for path in (scanned.home / "objects" / "videos").iterdir() if path.is_file()]
    assert len(stored) == len({row["sha256"] for row in scanned.results if row["sha256"]})
    assert scanned.line.left_behind() == []


def test_csv_and_parquet_say_the_same_as_json(scanned: Scanned, tmp_path: Path) -> None:
    scan = str(scanned.summary["scan"])
    as_csv = scanned.line.run("results", scan, "--home", scanned.home, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(as_csv.out, newline="")))
    assert sorted(row["verdict"] for row in rows) == sorted(row["verdict"] for row in scanned.results)
    file = tmp_path / "results.parquet"
    written = scanned.line.run("results", scan, "--home", scanned.home, "--format", "parquet", "--out", file)
    assert written.code == 0, written.err
    table = pq.read_table(file).to_pylist()
    assert {(row["name"], row["verdict"], row["p_fake"]) for row in table} == {
        (row["name"], row["verdict"], row["p_fake"]) for row in scanned.results
    }


def test_the_table_shows_one_line_per_video_and_no_raw_newline(scanned: Scanned) -> None:
    shown = scanned.line.run("results", str(scanned.summary["scan"]), "--home", scanned.home)
    assert shown.code == 0, shown.err
    assert "two\\nlines\\n.mp4" in shown.out
    assert "UNREADABLE" in shown.out


@pytest.mark.parametrize("by", ["dataset", "day"])
def test_results_can_be_summed_up(scanned: Scanned, by: str) -> None:
    scan = str(scanned.summary["scan"])
    shown = scanned.line.run("results", scan, "--home", scanned.home, "--by", by, "--format", "json")
    assert shown.code == 0, shown.err
    assert sum(row["videos"] for row in json.loads(shown.out)) == len(scanned.results)
    assert [row.get("dataset", "samples") for row in json.loads(shown.out)] == ["samples"]
    as_csv = scanned.line.run("results", scan, "--home", scanned.home, "--by", by, "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(as_csv.out))
    assert int(row["verdicts_UNREADABLE"]) == scanned.summary["verdicts"]["UNREADABLE"]


def test_sums_by_label_without_labels_say_how_to_give_them(scanned: Scanned) -> None:
    scan = str(scanned.summary["scan"])
    shown = scanned.line.run("results", scan, "--home", scanned.home, "--by", "label")
    assert (shown.code, shown.out.strip()) == (
        0,
        f"no path of scan {scan} has a label: submit a CSV manifest with the columns path,label",
    )


def test_status_lists_the_scans_and_whether_they_are_done(scanned: Scanned) -> None:
    shown = scanned.line.run("status", "--home", scanned.home)
    assert shown.code == 0, shown.err
    assert "samples" in shown.out and "done" in shown.out


def test_the_report_can_be_written_again_elsewhere(scanned: Scanned, tmp_path: Path) -> None:
    written = scanned.line.run(
        "report", str(scanned.summary["scan"]), "--home", scanned.home, "--out", tmp_path / "report"
    )
    assert written.code == 0, written.err
    assert Path(written.out.strip()).read_text().startswith("<!doctype html>")
    assert {path.name for path in (tmp_path / "report").iterdir()} >= {
        "index.html",
        "results.csv",
        "results.json",
        "results.parquet",
    }


def test_masks_are_exported_as_arrays_with_a_line_for_each(scanned: Scanned, tmp_path: Path) -> None:
    exported = scanned.line.run(
        "masks", "export", str(scanned.summary["scan"]), "--home", scanned.home, "--out", tmp_path
    )
    assert exported.code == 0, exported.err
    arrays = {Path(path): np.load(path) for path in exported.out.splitlines()}
    scored = {row["sha256"]: row["faces"] for row in scanned.results if row["p_fake"] is not None}
    assert len(arrays) >= len(scored) > 0
    for path, masks in arrays.items():
        assert masks.dtype == np.bool_ and masks.shape[1:] == (224, 224)
        assert len(path.with_suffix(".csv").read_text().splitlines()) == 1 + len(masks)
    assert {path.stem.rpartition("-")[2] for path in arrays} >= {sha256[:12] for sha256 in scored}


def test_models_lists_the_shipped_demonstration(scanned: Scanned) -> None:
    shown = scanned.line.run("models", "--home", scanned.home)
    assert shown.code == 0, shown.err
    assert "uynet-w16" in shown.out and "demonstration" in shown.out


def test_what_waits_in_a_home_is_finished_by_resume(scanned: Scanned, clips: Path, tmp_path: Path) -> None:
    """A rescan with another engine, and a manifest with labels, both handed in while no worker runs."""
    home, manifest = tmp_path / "home", tmp_path / "manifest.csv"
    shutil.copytree(scanned.home, home)
    new = scanned.line.run("rescan", str(scanned.summary["scan"]), "--home", home, "--engine", "simulated", "--json")
    assert new.code == 0, new.err
    manifest.write_text(f"path,label\n{clips / 'portrait.mp4'},REAL\n{clips / 'portrait_manipulated.mp4'},fake\n")
    labelled = scanned.line.run("submit", manifest, "--home", home, "--dataset", "labelled", "--json")
    assert labelled.code == 0, labelled.err
    done = scanned.line.run("scan", "--resume", "--home", home, "--json")
    assert done.code == 0, done.err
    summaries = [json.loads(line) for line in done.out.splitlines()]
    assert [summary["scan"] for summary in summaries] == [new.last_line["scan"], labelled.last_line["scan"]]
    assert [summary["videos"] for summary in summaries] == [len(scanned.results), 2]
    by_label = scanned.line.run("results", "--home", home, "--by", "label", "--format", "json")
    (row,) = json.loads(by_label.out)
    assert row["videos"] == row["scored"] == 2
    assert row["auc"] in (0.0, 0.5, 1.0) and row["eer"] is not None


def test_a_cancelled_scan_is_not_resumed(scanned: Scanned, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(scanned.home, home)
    new = scanned.line.run("rescan", str(scanned.summary["scan"]), "--home", home, "--json").last_line["scan"]
    assert "cancelled" in scanned.line.run("cancel", str(new), "--home", home).out
    assert "had ended already" in scanned.line.run("cancel", str(new), "--home", home).out
    assert scanned.line.run("scan", "--resume", "--home", home).code == 3
