"""The sample clips are what their names say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from farm.errors import BadVideo
from farm.media.faces import open_detector
from farm.media.video import probe, sample_frames
from farm.samples import FRAMES, astronaut, inner_face, manipulated, write_samples
from farm.split import Recipe, SplitSummary, split


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    assert sorted(path.name for path in write_samples(folder)) == sorted(path.name for path in folder.iterdir())
    return folder


def seen(path: Path) -> SplitSummary:
    run = split(path, Recipe(), open_detector())
    list(run)
    return run.summary


@pytest.mark.parametrize(
    ("name", "faces", "tracks"),
    [("portrait", 1, 1), ("portrait_manipulated", 1, 1), ("two_faces", 2, 2), ("no_face", 0, 0), ("cut_short", 1, 1)],
)
def test_each_frame_of_a_sample_has_the_faces_its_name_says(folder: Path, name: str, faces: int, tracks: int) -> None:
    summary = seen(folder / f"{name}.mp4")
    assert summary.frames_read >= 8
    assert summary.faces_found == summary.crops == faces * summary.frames_read
    assert summary.tracks == tracks


def test_the_damaged_sample_cannot_be_read_and_the_one_cut_short_can_in_part(folder: Path) -> None:
    with pytest.raises(BadVideo, match="damaged or cut off"):
        probe(folder / "damaged.mp4")
    source = sample_frames(folder / "cut_short.mp4")
    assert any("cut off" in note for note in source.notes)
    assert 0.3 * FRAMES < source.info.frames_found < 0.9 * FRAMES


def test_the_twin_is_the_portrait_but_for_its_inner_face() -> None:
    portrait = astronaut()
    changed = np.abs(manipulated(portrait).astype(int) - portrait).max(axis=2)
    inside = inner_face(512, 512).astype(bool)
    assert changed[inside].mean() > 8
    assert changed[:40].max() == changed[200:].max() == 0
    assert (changed[~inside] > 0).mean() < 0.02


def test_twins_move_alike(folder: Path) -> None:
    pairs = zip(
        sample_frames(folder / "portrait.mp4", "uniform:3"),
        sample_frames(folder / "portrait_manipulated.mp4", "uniform:3"),
        strict=True,
    )
    for (ref, real), (other, fake) in pairs:
        assert ref.pts_seconds == other.pts_seconds
        assert np.abs(real.astype(int) - fake).mean() < 6
        assert np.abs(real[:, :100].astype(int) - fake[:, :100]).mean() < 2


def test_samples_are_the_same_bytes_each_time_small_and_decoded_at_key_frames(folder: Path, tmp_path: Path) -> None:
    for path in write_samples(tmp_path):
        assert path.read_bytes() == (folder / path.name).read_bytes()
        assert path.stat().st_size < 1_000_000
    source = sample_frames(folder / "portrait.mp4")
    assert source.packets_decoded == 0
    assert len(list(source)) == source.packets_decoded
