"""What a user names, as single sources."""

from __future__ import annotations

import errno
import os

import pytest

from farm.errors import BadInput, NothingToScan
from farm.jobs.sources import Source, expand, shown


@pytest.fixture
def folder(tmp_path):
    """Videos at two depths, and files that are none."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("b.MP4", "a.mkv", "notes.txt", "deep/c.webm"):
        (tmp_path / "in" / name).write_bytes(b"x")
    return tmp_path / "in"


def names(*paths):
    return [source.name for source in expand(paths)]


def test_a_folder_gives_its_videos_at_every_depth_sorted_and_nothing_else(folder):
    assert names(folder) == ["a.mkv", "b.MP4", "deep/c.webm"]


def test_a_file_that_is_named_is_taken_whatever_it_is_called(folder):
    assert names(folder / "notes.txt") == ["notes.txt"]


def test_a_pattern_gives_what_it_matches(folder):
    assert names(f"{folder}/*.m*", f"{folder}/**/*.webm") == ["a.mkv", "c.webm"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(folder):
    (folder / "take[1].mp4").write_bytes(b"x")

    assert names(f"{folder}/take[1].mp4") == ["take[1].mp4"]


def test_a_missing_path_is_a_source_that_submit_will_find_missing(folder):
    assert [source.path for source in expand([folder / "no.mp4"])] == [str(folder / "no.mp4")]


def test_a_name_that_no_file_system_takes_is_a_source_too(folder):
    for path in ("n" * 300 + ".mp4", "a\0b.mp4"):
        assert [source.path for source in expand([path, folder / "a.mkv"])] == [path, str(folder / "a.mkv")]


def test_a_folder_that_cannot_be_listed_is_told_and_the_others_go_on(folder, monkeypatch):
    scandir = os.scandir

    def locked(path):
        if os.fspath(path).endswith("deep"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)

    found = list(expand([folder]))

    assert [source.error is None for source in found] == [True, True, False]
    assert found[2].path == str(folder / "deep")
    assert found[2].error == "the folder cannot be listed: Permission denied"


def test_a_folder_without_a_video_is_refused_with_what_would_be_one(tmp_path):
    (tmp_path / "readme.txt").write_text("x")

    with pytest.raises(NothingToScan, match=r"no video in .*\.mp4"):
        list(expand([tmp_path]))


def test_a_folder_without_a_video_does_not_disturb_the_others(folder, tmp_path):
    (tmp_path / "empty").mkdir()

    assert names(tmp_path / "empty", folder / "a.mkv") == ["a.mkv"]


def test_nothing_named_is_refused():
    with pytest.raises(NothingToScan, match="nothing to scan"):
        list(expand([]))


def test_a_manifest_gives_paths_beside_it_with_labels_and_whatever_else_it_says(folder):
    (folder / "list.csv").write_text("path,label,original,group\na.mkv,fake,orig.mp4,7\ndeep/c.webm,,,\n")

    assert list(expand([folder / "list.csv"])) == [
        Source(str(folder / "a.mkv"), "a.mkv", "FAKE", {"original": "orig.mp4", "group": "7"}),
        Source(str(folder / "deep/c.webm"), "deep/c.webm"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label\na.mkv,FAKE\n", "no column 'path'"),
        ("path,label\na.mkv,maybe\n", "line 2: label is 'MAYBE'"),
        ("path,label\n,REAL\n", "line 2: the path is empty"),
        ("", "no column 'path'"),
    ],
)
def test_a_manifest_that_does_not_parse_is_refused_with_its_line(folder, text, said):
    (folder / "list.csv").write_text(text)

    with pytest.raises(BadInput, match=said):
        list(expand([folder / "list.csv"]))


def test_a_missing_manifest_is_a_missing_path(tmp_path):
    assert names(tmp_path / "no.csv") == ["no.csv"]


def test_a_name_that_is_no_text_is_shown_escaped(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4")

    assert shown(path).endswith("/\\xff.mp4")
    assert shown("a\x00b") == "a\\0b"
