"""The whole way from faces to shipped files, in small."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from typer.testing import CliRunner

from farm.contracts import ModelCard
from farm.errors import BadInput
from farm.media.crops import cut, square_box
from farm.media.faces import open_detector
from trainer import cli, demo, prepare
from trainer.train import Recipe, restore


def test_one_call_goes_from_faces_to_weights_and_card(cache: Path, tmp_path: Path) -> None:
    shutil.copytree(cache, tmp_path / "work" / "cache")
    recipe = Recipe(width=2, images=8, pairs=2, seed=3)
    said: list[str] = []
    origin = "drawn by the test, CC0"
    card = demo.demo_weights(tmp_path, tmp_path / "out", tmp_path / "work", recipe, None, "0.0", origin, said.append)
    assert "portraits drawn by the test, CC0. " in card.training["data"]
    assert ModelCard.load(tmp_path / "out" / "uynet-w2.json") == card
    assert (tmp_path / "out" / card.weights).stat().st_size > 0
    assert card.training["images_seen"] == 8
    assert card.training["command"].endswith("--images 8 --seed 3")
    assert not any("cutting" in line for line in said), "a stage that was done is not done again"


def test_training_crops_are_cut_as_the_farm_cuts_them(tmp_path: Path) -> None:
    astronaut = skimage.data.astronaut()
    cv2.imwrite(str(tmp_path / "astronaut.png"), astronaut[:, :, ::-1])
    faces = prepare.prepare(tmp_path, tmp_path / "cache")
    face = open_detector("centerface", side_px=320, confidence=0.5).detect(astronaut)[0]
    expected = cut(astronaut, square_box(face.box, prepare.CROP_MARGIN))
    assert np.array_equal(faces.crops[0], expected)
    left_eye, right_eye, *_ = faces.points[0]
    assert 40 < left_eye[0] < right_eye[0] < 184, "the points are in crop pixels"
    assert faces.names == ("astronaut.png",) and not faces.mono[0]


def test_a_missing_checkpoint_is_explained_and_not_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadInput, match="trainer train"):
        restore(tmp_path / "last.pt")


def test_the_command_has_a_verb_for_every_stage() -> None:
    shown = CliRunner().invoke(cli.app, ["--help"])
    assert shown.exit_code == 0
    assert all(verb in shown.output for verb in ("prepare", "train", "evaluate", "export", "demo-weights"))


def test_a_stage_without_torch_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_torch() -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(cli, "app", without_torch)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    assert "torch is not installed; run `make install-trainer`" in capsys.readouterr().err
