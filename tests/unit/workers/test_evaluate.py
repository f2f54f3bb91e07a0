"""The evaluation of a folder of labelled crops: what is counted, what is left out, what is written; on the shipped weights."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from command_line import CommandLine

from farm.contracts import ModelCard
from farm.errors import BadInput, BadModel
from farm.jobs.models import shipped_card
from workers import evaluate as evaluation
from workers.engines import open_engine
from workers.evaluate import Evaluation, run
from workers.labelled_pictures import labelled_folder, read_crops

Labels = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder of pictures, given as name -> side in pixels or the file's bytes."""

    def write(**pictures: int | bytes) -> Path:
        noise = np.random.default_rng(3)
        images = tmp_path / "crops"
        for name, content in pictures.items():
            path = images / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
                continue
            small = noise.integers(0, 256, (7, 7, 3), np.uint8)
            cv2.imwrite(str(path), cv2.resize(small, (content, content), interpolation=cv2.INTER_CUBIC))
        return images

    return write


def labelled(tmp_path: Path, **labels: str) -> Path:
    """Labels in DFDC's form, with what else DFDC has in it."""
    path = tmp_path / "metadata.json"
    values = {
        name.replace("__", "/").replace("_", "."): {"label": label, "split": "train"} for name, label in labels.items()
    }
    path.write_text(json.dumps(values))
    return path


def evaluated(images: Path, labels: Path, tmp_path: Path, engine: str = "simulated", **changes: Any) -> Evaluation:
    chosen = {"engine": engine, "model": "", "card": "", "threads": 2, "out": tmp_path / "out", **changes}
    return run(images, labels, **chosen)


def test_right_and_wrong_are_the_networks_word_against_the_label(folder: Callable[..., Path], tmp_path: Path) -> None:
    images = folder(a_png=224, b_png=224, c_jpg=224)
    labels = labelled(tmp_path, a_png="FAKE", b_png="REAL", c_jpg="FAKE")
    done = evaluated(images, labels, tmp_path, "onnx")

    card = ModelCard.load(shipped_card())
    crops, _, _ = read_crops(labelled_folder(images, labels).pictures)
    alone = open_engine("onnx", shipped_card().with_name(card.weights), card)
    expected = alone.predict(crops)
    alone.close()
    p_fake, masks = np.load(tmp_path / "out/class.npy"), np.load(tmp_path / "out/mask.npy")
    assert np.allclose(p_fake, expected.p_fake, atol=1e-6)
    assert (masks == expected.masks).mean() > 0.9999 and masks.dtype == np.bool_
    right = int(((expected.p_fake >= 0.5) == [True, False, True]).sum())
    assert (done.right, done.wrong, done.accuracy) == (right, 3 - right, right / 3)
    assert (done.engine, done.precision, done.model) == ("onnx", "fp32", f"{card.name}@{card.version}")
    assert done.fps > done.fps_with_loading > 0


def test_a_card_is_evaluated_like_any_engine(tmp_path: Path, vart_model: Callable[..., tuple[Path, ModelCard]]) -> None:
    weights, card = vart_model()
    weights.with_suffix(".json").write_text(card.to_json())
    images = tmp_path / "crops"
    images.mkdir()
    for name, grey in (("bright.png", 250), ("dark.png", 5)):
        cv2.imwrite(str(images / name), np.full((224, 224, 3), grey, np.uint8))
    labels = labelled(tmp_path, bright_png="FAKE", dark_png="REAL")
    done = evaluated(images, labels, tmp_path, "vart", model=str(weights.with_suffix(".json")))
    assert (done.right, done.wrong, done.engine, done.precision) == (2, 0, "vart", "int8")
    assert np.load(tmp_path / "out/mask.npy").mean(axis=(1, 2)).tolist() == [1, 0]


def test_rows_keep_the_order_of_names_over_blocks_and_callers(
    folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = folder(**{f"p{number:02}_png": 224 for number in range(37)}, bad_png=b"no picture")
    labels = labelled(tmp_path, bad_png="FAKE", **{f"p{number:02}_png": "REAL" for number in range(37)})
    whole = evaluated(images, labels, tmp_path, threads=1)
    expected = np.load(tmp_path / "out/class.npy"), np.load(tmp_path / "out/mask.npy")
    monkeypatch.setattr(evaluation, "BLOCK_CROPS", 10)
    pieces = evaluated(images, labels, tmp_path, threads=3, out=tmp_path / "pieces")
    assert np.array_equal(np.load(tmp_path / "pieces/class.npy"), expected[0], equal_nan=True)
    assert np.array_equal(np.load(tmp_path / "pieces/mask.npy"), expected[1])
    assert (pieces.right, pieces.wrong) == (whole.right, whole.wrong)


def test_an_unreadable_picture_is_counted_and_neither_right_nor_wrong(
    folder: Callable[..., Path], tmp_path: Path
) -> None:
    images = folder(a_png=224, b_png=b"no picture", c_png=b"")
    done = evaluated(images, labelled(tmp_path, a_png="FAKE", b_png="FAKE", c_png="REAL"), tmp_path)
    assert (done.right + done.wrong, done.unreadable) == (1, 2)
    assert [math.isnan(value) for value in np.load(tmp_path / "out/class.npy")] == [False, True, True]
    rows = list(csv.DictReader((tmp_path / "out/crops.csv").read_text().splitlines()))
    assert [(row["name"], row["right"] != "") for row in rows] == [("a.png", True), ("b.png", False), ("c.png", False)]


def test_another_size_is_resized_and_told(folder: Callable[..., Path], tmp_path: Path) -> None:
    images = folder(a_png=300, b_png=100, c_png=224)
    done = evaluated(images, labelled(tmp_path, a_png="FAKE", b_png="FAKE", c_png="REAL"), tmp_path)
    assert (done.resized, done.right + done.wrong) == (2, 3)
    assert "2 of another size than 224 x 224, resized" in evaluation.told(done)


def test_a_label_in_any_case_is_found_by_path_then_name_then_stem(folder: Callable[..., Path], tmp_path: Path) -> None:
    images = folder(one__a_png=224, two__a_png=224, b_png=224, video_png=224, nobody_png=224)
    labels = labelled(tmp_path, one__a_png="Fake", a_png="real", b_png="REAL", video_mp4="FAKE", gone_png="REAL")
    found = labelled_folder(images, labels)
    assert {picture.name: picture.fake for picture in found.pictures} == {
        "one/a.png": True, "two/a.png": False, "b.png": False, "video.png": True
    }  # fmt: skip
    assert (found.unlabelled, found.unused_labels) == (("nobody.png",), 1)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"a.png": {"label": "MAYBE"}}, "MAYBE"),
        ({"a.png": "FAKE"}, r'expected {"label": "REAL"}'),
        ({"a.png": {}}, "a.png"),
        (["a.png"], "list"),
        ({"b.png": {"label": "REAL"}}, "a.png"),
        ({"a.mp4": {"label": "REAL"}, "a.avi": {"label": "FAKE"}}, "both REAL and FAKE"),
    ],
)
def test_labels_that_say_nothing_are_refused(
    folder: Callable[..., Path], tmp_path: Path, labels: Labels, said: str
) -> None:
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps(labels))
    with pytest.raises(BadInput) as raised:
        evaluated(folder(a_png=224), path, tmp_path)
    assert said in str(raised.value)


def test_bad_folders_models_and_counts_are_refused(folder: Callable[..., Path], tmp_path: Path) -> None:
    labels = labelled(tmp_path, a_png="REAL")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds no picture"):
        evaluated(tmp_path / "empty", labels, tmp_path)
    with pytest.raises(BadInput, match="is no folder"):
        evaluated(tmp_path / "nowhere", labels, tmp_path)
    with pytest.raises(BadInput, match="cannot be read"):
        evaluated(folder(a_png=224), tmp_path / "nowhere.json", tmp_path)
    with pytest.raises(BadModel, match="cannot be read"):
        evaluated(folder(a_png=224), labels, tmp_path, model=str(tmp_path / "nowhere.json"))
    with pytest.raises(BadInput, match="choose one of onnx, openvino"):
        evaluated(folder(a_png=224), labels, tmp_path, engine="onxx")
    with pytest.raises(BadInput, match="can be read as one"):
        evaluated(folder(a_png=b"no picture"), labels, tmp_path)


def test_the_command_prints_words_and_then_json(folder: Callable[..., Path], tmp_path: Path) -> None:
    images = folder(a_png=224, b_png=224)
    labels = labelled(tmp_path, a_png="FAKE", b_png="REAL")
    line = CommandLine(tmp_path)
    ran = line.run("evaluate", "--images", images, "--labels", labels, "--engine", "simulated", "-t", "2", "--json")
    assert ran.code == 0, ran.err
    told = ran.last_line
    assert f"right {told['right']}, wrong {told['wrong']} of 2 crops" in ran.out
    assert np.load(tmp_path / told["out"] / "mask.npy").shape == (2, 224, 224)
    refused = line.run("evaluate", "--images", images, "--labels", tmp_path / "nowhere.json", "--engine", "simulated")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("farm: the labels ")
