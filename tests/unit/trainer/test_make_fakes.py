"""Twins on disk are what a training would have made, in the format of any prepared set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from farm.errors import BadInput
from trainer import augment
from trainer.cli import app
from trainer.make_fakes import make_fakes
from trainer.manifest import CropSet
from trainer.material import Source
from trainer.splits import Split, leaks, make_split
from trainer.twins import make_pair


def test_twins_are_the_pairs_that_their_seed_draws(portraits: Path, tmp_path: Path) -> None:
    crops, rows = CropSet.open(portraits), np.arange(6)
    made = make_fakes(crops, rows, ["self", "donor"], tmp_path / "twins", seed=5)
    rng = np.random.default_rng((5, 3, 1, 0))
    recipe = augment.draw(rng)
    expected = make_pair(Source(crops, rows, {"self": 1, "donor": 1}), 3, "donor", rng, recipe)
    row = int(np.flatnonzero(made.videos == "3.jpg@donor-0.fake")[0])
    assert np.array_equal(made.crop(row), expected.fake)
    assert np.array_equal(made.crop(int(made.original_rows[row])), expected.real)
    mask = made.mask(row)
    assert mask is not None and np.array_equal(mask, expected.mask)
    assert made.column("mask_area")[row] == pytest.approx(expected.mask.mean())


def test_every_fake_has_its_real_and_keeps_its_group(portraits: Path, tmp_path: Path) -> None:
    made = make_fakes(CropSet.open(portraits), np.arange(4), ["self", "resampled"], tmp_path / "twins", per_crop=2)
    assert len(made) == 4 * 2 * 2 * 2 and made.fake.sum() == 16
    twins = made.original_rows[made.fake]
    assert (twins >= 0).all() and len(set(twins)) == 16
    assert (made.column("group")[made.fake] == made.column("group")[twins]).all()
    assert set(made.column("group")) == {"p0", "p1"}
    assert set(made.column("method")) == {"real", "self", "resampled"}


def test_monochrome_faces_are_left_out(portraits: Path, tmp_path: Path) -> None:
    made = make_fakes(CropSet.open(portraits), np.arange(20, 24), ["self"], tmp_path / "twins")
    assert set(made.videos[~made.fake]) == {"20.jpg@self-0", "21.jpg@self-0"}


def test_a_sets_own_pairs_keep_their_method_and_their_frames(aligned: Path, tmp_path: Path) -> None:
    crops = CropSet.open(aligned)
    made = make_fakes(crops, np.arange(len(crops)), ["pair"], tmp_path / "twins", recipe_of=augment.video_like)
    assert set(made.column("method")[made.fake]) == {"swap", "mix"}
    assert made.fake.sum() == crops.fake.sum() and (made.original_rows[made.fake] >= 0).all()
    assert sorted(made.column("frame_index")[made.fake]) == sorted(crops.column("frame_index")[crops.fake])


def test_boxes_and_points_follow_the_augmentation(portraits: Path, tmp_path: Path) -> None:
    """A dark eye of a drawn face is where its point says, mirrored or not."""
    made = make_fakes(CropSet.open(portraits), np.arange(12), ["self"], tmp_path / "twins")
    for row in np.flatnonzero(~made.fake):
        left, right = made.points[row][:2]
        assert left[0] < right[0], "the eye on the left comes first"
        x, y = left.round().astype(int)
        face = made.crop(int(row)).mean(axis=2)
        assert face[y - 3 : y + 4, x - 3 : x + 4].mean() < face[y - 3 : y + 4, x + 22 : x + 28].mean()
        x0, y0, x1, y1 = made.face_boxes[row]
        assert x0 < left[0] < right[0] < x1 and y0 < left[1] < y1


def test_a_folder_with_a_set_in_it_is_not_written_over(portraits: Path, tmp_path: Path) -> None:
    make_fakes(CropSet.open(portraits), np.arange(2), ["self"], tmp_path / "twins")
    with pytest.raises(BadInput, match="holds a prepared set already"):
        make_fakes(CropSet.open(portraits), np.arange(2), ["self"], tmp_path / "twins")


def test_unpaired_fakes_have_no_twin(with_unpaired: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="twins are made"):
        make_fakes(CropSet.open(with_unpaired), np.arange(5), ["unpaired"], tmp_path / "twins")


def test_the_commands_split_redraw_and_make_fakes_follow_one_another(portraits_copy: Path, tmp_path: Path) -> None:
    run, folder = CliRunner(), str(portraits_copy)
    shown = run.invoke(app, ["split", folder, "--validation", "0.4", "--json"])
    report = json.loads(shown.output)
    assert report["leaks"] == [] and report["sides"]["validation"]["crops"] > 2
    assert run.invoke(app, ["redraw", folder, "--steps", "1"]).exit_code == 0
    out = tmp_path / "twins"
    made = run.invoke(app, ["make-fakes", folder, "--out", str(out), "--kinds", "self,redrawn", "--video-like"])
    assert made.exit_code == 0, made.output
    held_out = Split.open(portraits_copy).rows(CropSet.open(portraits_copy), "validation")
    people = set(CropSet.open(portraits_copy).column("group")[held_out])
    assert set(CropSet.open(out).column("group")) <= people and set(CropSet.open(out).column("method")) >= {"redrawn"}


def test_a_split_that_leaks_says_so_on_the_terminal(portraits_copy: Path) -> None:
    shown = CliRunner().invoke(app, ["split", str(portraits_copy), "--by", "video", "--validation", "0.5"])
    assert "LEAK group p" in shown.output and "leaks" in shown.output.splitlines()[-1]
    crops = CropSet.open(portraits_copy)
    assert leaks(Split.open(portraits_copy), [crops])
    clean = CliRunner().invoke(app, ["split", str(portraits_copy), "--validation", "0.5"])
    assert clean.output.splitlines()[-1] == "no leak"


def test_twins_can_be_split_again_without_leaks(aligned: Path, tmp_path: Path) -> None:
    crops = CropSet.open(aligned)
    made = make_fakes(crops, np.arange(len(crops)), ["pair", "self"], tmp_path / "twins")
    split = make_split([made], validation=0.5)
    assert not leaks(split, [made])
