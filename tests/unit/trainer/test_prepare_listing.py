"""The whole way in this process's own eyes: settings, portraits, an open set."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from farm.errors import BadInput, StorageAway
from farm.samples import astronaut
from trainer.cutting import Cutting
from trainer.prepare import Prepared, Progress, prepare_set
from trainer.sources import pictures

HOW = Cutting(frames=1)


@pytest.fixture(scope="module")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One photograph under two names, its mirror image, and a picture without a face."""
    root = tmp_path_factory.mktemp("portraits")
    bgr = np.ascontiguousarray(astronaut()[:, :, ::-1])
    shown = {"a": bgr, "b": bgr, "mirrored": bgr[:, ::-1], "suit": bgr[300:500, 300:500]}
    for name, picture in shown.items():
        cv2.imwrite(str(root / f"{name}.png"), picture)
    return root


@pytest.fixture(scope="module")
def prepared(portraits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, list[Progress]]:
    seen: list[Progress] = []
    done = prepare_set(pictures.read(portraits), tmp_path_factory.mktemp("out"), HOW, 1, seen.append)
    return done, seen


def test_portraits_are_reals_of_one_frame_and_one_photograph_is_one_person(
    prepared: tuple[Prepared, list[Progress]],
) -> None:
    crops = prepared[0].crops
    assert list(crops.videos) == ["a.png", "b.png", "mirrored.png"] == list(crops.column("original"))
    assert not crops.fake.any() and list(crops.column("frame_index")) == [0, 0, 0]
    groups = crops.column("group")
    assert groups[0] == groups[1] != groups[2]
    assert prepared[0].counts() == [("no face found", False, 1)]


def test_progress_starts_at_nothing_and_ends_with_all_bytes(
    prepared: tuple[Prepared, list[Progress]], portraits: Path
) -> None:
    seen = prepared[1]
    size = sum(path.stat().st_size for path in portraits.iterdir())
    assert seen[0] == Progress(0, 4, 0, size) and seen[-1] == Progress(4, 4, size, size)
    assert [p.bytes_done for p in seen] == sorted(p.bytes_done for p in seen)


def test_a_second_start_has_nothing_left_to_do(prepared: tuple[Prepared, list[Progress]], portraits: Path) -> None:
    seen: list[Progress] = []
    again = prepare_set(pictures.read(portraits), prepared[0].crops.folder, HOW, 1, seen.append)
    assert [p.units_done for p in seen] == [4]
    assert again.crops.table.equals(prepared[0].crops.table) and again.remarks == prepared[0].remarks


def test_a_damaged_settings_file_is_named(portraits: Path, tmp_path: Path) -> None:
    (tmp_path / "prepare.json").write_text("{")
    with pytest.raises(BadInput, match=r"prepare\.json is damaged"):
        prepare_set(pictures.read(portraits), tmp_path, HOW, 1)


def test_settings_name_what_differs(portraits: Path, tmp_path: Path) -> None:
    (tmp_path / "prepare.json").write_text(json.dumps({"layout": "portraits", "frames": 1}))
    with pytest.raises(BadInput, match=r"margin, detector, .*masks_changed_above"):
        prepare_set(pictures.read(portraits), tmp_path, HOW, 1)


def test_a_folder_that_cannot_be_made_is_a_clear_error(portraits: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageAway, match="cannot be written"):
        prepare_set(pictures.read(portraits), tmp_path / "file" / "out", HOW, 1)


def test_a_folder_that_holds_something_else_is_left_alone(portraits: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"holds something else \(thesis\.txt\)"):
        prepare_set(pictures.read(portraits), tmp_path, HOW, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
