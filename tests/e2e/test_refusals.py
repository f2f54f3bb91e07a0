"""What `farm` says where it cannot do what was asked: one line, an exit code, nothing lost."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable
from pathlib import Path

import bad_clips
import pytest
from command_line import CommandLine, wait_for


def one_line(text: str) -> str:
    """The one line of an error, none of a traceback."""
    lines = [line for line in text.splitlines() if line.startswith("farm: ")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


def test_a_folder_without_a_video_is_nothing_to_scan(line: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "notes.txt").write_text("no video here")
    ran = line.run("scan", folder, "--home", tmp_path / "home")
    assert ran.code == 3
    assert str(folder) in one_line(ran.err)
    assert line.left_behind() == []


def test_a_home_that_holds_no_farm_is_named(line: CommandLine, tmp_path: Path) -> None:
    ran = line.run("status", "--home", tmp_path / "nowhere")
    assert ran.code == 1
    assert str(tmp_path / "nowhere") in one_line(ran.err)
    assert not (tmp_path / "nowhere").exists()


def test_a_home_or_an_output_that_cannot_be_written_is_one_line(line: CommandLine, tmp_path: Path) -> None:
    clip, blocked = tmp_path / "clip.mp4", tmp_path / "file" / "below"
    bad_clips.video(clip, frames=10)
    blocked.parent.write_text("a file where a folder should be")
    ran = line.run("scan", clip, "--home", blocked)
    assert ran.code == 1
    assert str(blocked) in one_line(ran.err)
    assert line.run("db", "upgrade", "--home", tmp_path / "home").code == 0
    ran = line.run("results", "--by", "day", "--home", tmp_path / "home", "--out", blocked)
    assert ran.code == 1
    assert str(blocked) in one_line(ran.err)


def test_a_setting_that_is_wrong_is_one_line(line: CommandLine) -> None:
    ran = line.run("status", env={"FARM_LEASE_SECONDS": "abc"})
    assert ran.code == 1
    assert "FARM_LEASE_SECONDS is 'abc'" in one_line(ran.err)


def test_an_unknown_scan_is_named(line: CommandLine, tmp_path: Path) -> None:
    assert line.run("db", "upgrade", "--home", tmp_path / "home").code == 0
    for command in (
        ("results", "7"),
        ("results", "7", "--by", "label"),
        ("cancel", "7"),
        ("rescan", "7"),
        ("report", "7", "--out", "out"),
        ("masks", "export", "7", "--out", "out"),
    ):
        ran = line.run(*command, "--home", tmp_path / "home")
        assert ran.code == 1, command
        assert "7" in one_line(ran.err)


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("--engine", "abacus", "abacus"),
        ("--sampling", "sometimes", "sometimes"),
        ("--model", "nobody@9", "nobody@9"),
        ("--model", "no.json", "no.json"),
    ],
)
def test_a_wrong_choice_is_refused_before_anything_is_scanned(
    line: CommandLine, tmp_path: Path, option: str, value: str, word: str
) -> None:
    clip = tmp_path / "clip.mp4"
    bad_clips.video(clip, frames=10)
    ran = line.run("scan", clip, "--home", tmp_path / "home", option, value)
    assert ran.code == 1
    assert word in one_line(ran.err)
    assert line.left_behind() == []


def test_a_schema_that_is_behind_says_how_to_mend_it(line: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "farm.db").touch()
    for command in (("status",), ("db", "status")):
        ran = line.run(*command, "--home", tmp_path / "home")
        assert ran.code == 1
        assert "farm db upgrade" in one_line(ran.err)
    assert line.run("db", "upgrade", "--home", tmp_path / "home").code == 0
    assert line.run("db", "status", "--home", tmp_path / "home").code == 0


@pytest.mark.parametrize(
    "environment",
    [
        {"FARM_DATABASE_URL": "postgresql://farm@127.0.0.1:1/farm", "FARM_STORAGE_URL": "file:///tmp/farm-nowhere"},
        {"FARM_DATABASE_URL": "oracle://farm", "FARM_STORAGE_URL": "file:///tmp/farm-nowhere"},
    ],
)
def test_a_database_that_is_away_is_one_line(line: CommandLine, environment: dict[str, str]) -> None:
    ran = line.run("status", env=environment)
    assert ran.code == 1
    assert one_line(ran.err)


def room_per_file(mebibytes: int) -> Callable[[], None]:
    """As a disk on which no file has more room than this. Python ignores the signal, so that a write fails as on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (mebibytes << 20, mebibytes << 20))


def test_a_full_disk_is_said_and_nothing_is_lost(line: CommandLine, tmp_path: Path) -> None:
    home, clip = tmp_path / "home", tmp_path / "clip.mp4"
    bad_clips.video(clip, frames=50)
    with clip.open("ab") as file:
        file.write(b"\0" * (2 << 20))
    full = line.run("scan", clip, "--home", home, preexec_fn=room_per_file(1))
    assert full.code == 1
    assert one_line(full.err)
    assert line.left_behind() == []
    later = line.run("scan", clip, "--home", home, "--json")
    assert later.code == 0, later.err
    assert later.last_line["verdicts"] == {"NO_FACE": 1}


def test_a_disk_that_fills_during_a_scan_costs_one_video_until_it_is_scanned_again(
    line: CommandLine, tmp_path: Path, clips: Path
) -> None:
    """A batch of 64 crops is 9.2 MiB; the weights and the videos are smaller."""
    home = tmp_path / "home"
    scan = ("scan", clips / "portrait.mp4", clips / "whole.mp4", "--home", home, "--sampling", "every:2", "--json")
    full = line.run(*scan, env={"FARM_MAX_ATTEMPTS": "1"}, preexec_fn=room_per_file(9))
    assert full.code == 0, full.err
    assert full.last_line["verdicts"] == {"NO_FACE": 1, "UNREADABLE": 1}
    assert "is full: File too large" in " ".join(line.run("status", "--home", home).out.split())
    line.run("rescan", "1", "--home", home)
    again = line.run("scan", "--resume", "--home", home, "--json")
    assert again.code == 0, again.err
    assert set(again.last_line["verdicts"]) <= {"NO_FACE", "UNCERTAIN", "REAL", "FAKE"}
    assert line.left_behind() == []


def test_a_home_in_use_is_said(line: CommandLine, tmp_path: Path, clips: Path) -> None:
    home = tmp_path / "home"
    first = line.start("scan", clips, "--home", home)
    try:
        wait_for((home / "farm.db").is_file)
        second = line.run("scan", clips, "--home", home)
        assert second.code == 1
        assert "running already" in one_line(second.err)
    finally:
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=60)


def test_ctrl_c_stops_cleanly_and_the_scan_can_be_resumed(line: CommandLine, tmp_path: Path, clips: Path) -> None:
    home = tmp_path / "home"
    process = line.start("scan", clips, "--home", home)
    wait_for(lambda: any((home / "objects" / "crops").glob("*/*/*")))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert f"farm scan --resume --home {home}" in err
    assert "Traceback" not in err and out == ""
    assert line.left_behind() == []
    resumed = line.run("scan", "--resume", "--home", home, "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.last_line["scan"] == 1
    assert "FAKE" not in resumed.last_line["verdicts"] or resumed.last_line["videos"] > 1


def test_killed_without_warning_it_leaves_no_process(line: CommandLine, tmp_path: Path, clips: Path) -> None:
    home = tmp_path / "home"
    process = line.start("scan", clips, "--home", home)
    wait_for(lambda: any((home / "objects" / "videos").glob("*")))
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: line.left_behind() == [])
