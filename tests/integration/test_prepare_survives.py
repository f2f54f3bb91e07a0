"""`trainer prepare` as its users start it: killed, stopped, out of room, asked twice."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from dfdc_folder import write_dfdc

from trainer.manifest import CropSet

COMMAND = [sys.executable, "-c", "from trainer.cli import main; main()", "prepare"]
PARTS = 6


@pytest.fixture(scope="module")
def dfdc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dfdc(tmp_path_factory.mktemp("dfdc"), PARTS)


@pytest.fixture(scope="module")
def undisturbed(dfdc: Path, tmp_path_factory: pytest.TempPathFactory) -> CropSet:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert prepare(dfdc, out).returncode == 0
    return CropSet.open(out)


def arguments(root: Path, out: Path, *more: str) -> list[str]:
    return [*COMMAND, "dfdc", str(root), "--out", str(out), "--frames", "4", *more]


def prepare(
    root: Path, out: Path, *more: str, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments(root, out, *more), capture_output=True, text=True, check=False, timeout=150, preexec_fn=before
    )


def start(root: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    """Started with its own process group; answers when the first unit is finished."""
    process = subprocess.Popen(
        arguments(root, out, *more),
        start_new_session=True,
        text=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    wait_until(lambda: any((out / "units").glob("*.json")) or process.poll() is not None)
    assert process.poll() is None, "it ended before it could be disturbed"
    return process


def wait_until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 120
    while not true():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.005)


def group_is_gone(process: subprocess.Popen[str]) -> bool:
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return True
    return False


def same_set(a: CropSet, b: CropSet) -> bool:
    return a.table.equals(b.table) and all((a.crop(i) == b.crop(i)).all() for i in range(len(a)))


def test_a_killed_start_leaves_nothing_half_and_the_next_one_goes_on(
    dfdc: Path, undisturbed: CropSet, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(dfdc, out, "--processes", "1")
    process.kill()
    process.communicate()
    wait_until(lambda: group_is_gone(process))
    assert not (out / "manifest.parquet").exists()
    finished = {path: path.stat().st_mtime_ns for path in (out / "units").glob("*.json")}
    assert 0 < len(finished) < PARTS
    assert prepare(dfdc, out).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in finished} == finished, "what was finished was done again"
    assert same_set(CropSet.open(out), undisturbed)


def test_ctrl_c_stops_at_once_and_the_next_start_goes_on(dfdc: Path, undisturbed: CropSet, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(dfdc, out, "--processes", "1")
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and "goes on" in told and "Traceback" not in told
    wait_until(lambda: group_is_gone(process))
    assert prepare(dfdc, out).returncode == 0
    assert same_set(CropSet.open(out), undisturbed)


def test_a_killed_worker_loses_nothing(dfdc: Path, undisturbed: CropSet, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(dfdc, out, "--processes", "1")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [pid for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert workers
    for pid in workers:
        os.kill(int(pid), signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert same_set(CropSet.open(out), undisturbed)


def test_a_full_disk_is_said_and_the_next_start_goes_on(dfdc: Path, undisturbed: CropSet, tmp_path: Path) -> None:
    out = tmp_path / "out"
    full = prepare(dfdc, out, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)))
    assert full.returncode == 1
    assert "cannot be written" in full.stderr and "same command again" in full.stderr
    assert "Traceback" not in full.stderr
    assert not (out / "manifest.parquet").exists() and not list((out / "units").glob("*.json"))
    assert prepare(dfdc, out).returncode == 0
    assert same_set(CropSet.open(out), undisturbed)


def test_other_settings_and_another_layout_are_refused_in_a_prepared_folder(
    dfdc: Path, undisturbed: CropSet, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(undisturbed.folder, tmp_path / "out"))
    other = subprocess.run([*COMMAND, "dfdc", dfdc, "--out", out], capture_output=True, text=True, check=False)
    assert other.returncode == 1 and "other settings (frames" in other.stderr
    (tmp_path / "v.csv").write_text(f"path,label\n{dfdc}/dfdc_train_part_0/real_0.mp4,REAL\n")
    command = [*COMMAND, "csv", tmp_path / "v.csv", "--out", out, "--frames", "4"]
    other = subprocess.run(command, capture_output=True, text=True, check=False)
    assert other.returncode == 1 and "other settings (layout" in other.stderr
    assert same_set(CropSet.open(out), undisturbed)


def test_a_changed_label_is_noticed_and_what_was_odd_is_told(dfdc: Path, undisturbed: CropSet, tmp_path: Path) -> None:
    root = Path(shutil.copytree(dfdc, tmp_path / "root"))
    out = Path(shutil.copytree(undisturbed.folder, tmp_path / "out"))
    file = root / "dfdc_train_part_0/metadata.json"
    rows = json.loads(file.read_text())
    rows["fake_0_1.mp4"]["label"] = "PERHAPS"
    file.write_text(json.dumps(rows | {"gone.mp4": {"label": "REAL"}}))
    done = prepare(root, out)
    assert done.returncode == 0 and "neither REAL nor FAKE" in done.stderr and "file is missing" in done.stderr
    crops = CropSet.open(out)
    assert len(crops) == len(undisturbed) - 4
    assert "dfdc_train_part_0/fake_0_1.mp4" not in crops.videos
    told = {(row["video"], row["reason"]) for row in json.loads((out / "skipped.json").read_text())}
    assert told == {
        ("dfdc_train_part_0/fake_0_1.mp4", "label is neither REAL nor FAKE"),
        ("dfdc_train_part_0/gone.mp4", "file is missing"),
    }


def test_the_contact_sheet_shows_each_fake_beside_its_original_and_mask(undisturbed: CropSet) -> None:
    sheet = cv2.imread(str(undisturbed.folder / "contact.png"))
    assert sheet is not None
    assert sheet.shape == (6 * 132, 4 * (3 * 112 + 6), 3)
    assert sheet[112:126, : 3 * 112].min() < 128, "the name of the video stands under its tiles"
    real, fake, mask = (sheet[:112, i * 112 : (i + 1) * 112].astype(int) for i in range(3))
    assert set(mask[0, 0]) == {0} and mask.max() == 255
    apart = abs(real - fake).mean(axis=2)
    assert apart[mask[:, :, 0] > 128].mean() > 2 * apart[mask[:, :, 0] < 128].mean()


@pytest.mark.parametrize(
    ("layout", "real", "fake"),
    [
        ("ffpp", "original_sequences/youtube/c40/videos/003", "manipulated_sequences/Deepfakes/c40/videos/003_000"),
        ("celebdf", "Celeb-real/id1_0002", "Celeb-synthesis/id1_id0_0002"),
    ],
)
def test_the_other_layouts_give_aligned_pairs_too(
    dfdc: Path, tmp_path: Path, layout: str, real: str, fake: str
) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    for name, clip in ((real, "real_0"), (fake, "fake_0_0")):
        (root / f"{name}.mp4").parent.mkdir(parents=True)
        shutil.copy(dfdc / "dfdc_train_part_0" / f"{clip}.mp4", root / f"{name}.mp4")
    option = ["--compression", "c40"] if layout == "ffpp" else ["--part", "all"]
    command = [*COMMAND, layout, root, "--out", out, "--frames", "4", "--processes", "1", *option]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    crops = CropSet.open(out)
    assert list(crops.original_rows[crops.fake]) == list((~crops.fake).nonzero()[0])
    assert set(crops.column("original")) == {f"{real}.mp4"} and len(set(crops.column("group"))) == 1


def test_a_set_without_any_face_is_refused_with_the_reason_kept(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "v.csv").write_text("path,label\nempty.mp4,REAL\n")
    command = [*COMMAND, "csv", tmp_path / "v.csv", "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "not one face" in done.stderr
    assert "0 bytes" in json.loads((tmp_path / "out/skipped.json").read_text())[0]["detail"]
