"""A whole split: video in, crop batches and a summary out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numbered_clips import number_of, write_clip
from numpy.typing import NDArray

from farm.contracts import Box, CropBatch, Face
from farm.errors import BadInput, BadVideo
from farm.media.batches import encode_batch
from farm.media.faces import Detector, open_detector
from farm.samples import FACE, FRAMES, astronaut, moving
from farm.samples import write_clip as write_sample
from farm.settings import Settings
from farm.split import Recipe, SplitSummary, split

SHARP = Recipe(min_sharpness=0, min_brightness=0)
"""Floors that let the made-up clips' flat faces pass."""


class Scripted:
    """A detector that answers by the number a frame shows."""

    name = "scripted"

    def __init__(self, script: Callable[[int], list[Face]]) -> None:
        self._script = script

    def detect(self, rgb: NDArray[np.uint8]) -> list[Face]:
        return self._script(number_of(rgb))


def face(x: float, y: float = 30, side: float = 45) -> Face:
    return Face(Box(x, y, x + side, y + side), 0.75)


def run(path: Path, recipe: Recipe, detector: Detector) -> tuple[list[CropBatch], SplitSummary]:
    splitting = split(path, recipe, detector)
    batches = list(splitting)
    return batches, splitting.summary


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", frames=20)


def test_the_faces_of_a_real_clip_come_out_as_one_track(tmp_path: Path) -> None:
    portrait = astronaut()
    path = write_sample(tmp_path / "a.mp4", (moving(portrait, 3 * n, FACE, 480) for n in range(FRAMES // 3)))
    (batch,), seen = run(path, Recipe(), open_detector())
    assert seen.frames_read == seen.faces_found == seen.crops == len(batch.crops) >= 8
    assert (seen.tracks, seen.rejected, seen.notes) == (1, {}, ())
    assert {crop.track for crop in batch.crops} == {0}
    assert (batch.pixels.mean(axis=(1, 2, 3)) > 60).all()
    assert seen.duration_seconds == pytest.approx(FRAMES / 3 / 24, abs=0.05)


def test_batches_hold_every_face_in_order_of_frame_then_track(clip: Path) -> None:
    both = Scripted(lambda n: [face(90), face(10)] if n % 2 else [face(10), face(90)])
    batches, seen = run(clip, replace(SHARP, sampling="all", batch_crops=16), both)
    assert [(batch.index, len(batch.crops)) for batch in batches] == [(0, 16), (1, 16), (2, 8)]
    order = [(crop.frame.index, crop.track) for batch in batches for crop in batch.crops]
    assert order == [(n, track) for n in range(20) for track in (0, 1)]
    assert (seen.crops, seen.faces_found, seen.tracks, seen.frames_read) == (40, 40, 2, 20)


def test_a_crop_shows_what_its_box_says(clip: Path) -> None:
    (batch, *_), _ = run(clip, replace(SHARP, sampling="every:5", margin=0.0), Scripted(lambda n: [face(70, 0, 48)]))
    for crop, pixels in zip(batch.crops, batch.pixels, strict=True):
        assert crop.crop_box == Box(70, 0, 118, 48)
        red = pixels[:100].reshape(-1, 3).mean(axis=0)
        assert red[0] > 200 and red[1] < 60, "the red quarter of the frame is the upper half of this crop"
        assert crop.frame.pts_seconds == pytest.approx(crop.frame.index / 25)


def test_the_box_told_is_the_one_that_was_cut(clip: Path) -> None:
    (batch,), _ = run(clip, replace(SHARP, sampling="uniform:3", margin=0.5), Scripted(lambda n: [face(-20, -20, 60)]))
    assert {crop.crop_box for crop in batch.crops} == {Box(0, 0, 96, 96)}
    assert {crop.face_box for crop in batch.crops} == {Box(-20, -20, 40, 40)}


@pytest.mark.parametrize(
    ("floors", "reason"),
    [
        ({"min_face_px": 46}, "too_small"),
        ({"min_sharpness": 1e9}, "too_blurred"),
        ({"min_brightness": 254}, "too_dark"),
    ],
)
def test_an_unusable_face_is_kept_out_and_counted(clip: Path, floors: dict[str, Any], reason: str) -> None:
    batches, seen = run(clip, replace(SHARP, sampling="all", **floors), Scripted(lambda n: [face(30)]))
    assert batches == []
    assert seen.rejected == {reason: 20}
    assert (seen.faces_found, seen.crops, seen.tracks) == (20, 0, 0)


def test_a_face_of_16_pixels_is_too_small_by_default(clip: Path) -> None:
    _, seen = run(clip, replace(Recipe(), sampling="all"), Scripted(lambda n: [face(30, side=16)]))
    assert seen.rejected == {"too_small": 20}


def test_default_floors_keep_a_plain_face_and_drop_a_smear_and_a_shadow(tmp_path: Path) -> None:
    import cv2

    portrait = astronaut()
    views = [portrait, cv2.GaussianBlur(portrait, (0, 0), 5), portrait // 12]
    path = write_sample(tmp_path / "a.mp4", (views[n // 10] for n in range(30)))
    plain = Scripted(lambda n: [])
    plain.detect = lambda rgb: [Face(Box(184, 63, 268, 174), 0.9)]  # type: ignore[method-assign]
    _, seen = run(path, replace(Recipe(), sampling="all"), plain)
    assert seen.rejected == {"too_blurred": 10, "too_dark": 10}
    assert seen.crops == 10


def test_the_same_bytes_and_recipe_give_the_same_batches_bit_for_bit(tmp_path: Path) -> None:
    portrait = astronaut()
    path = write_sample(tmp_path / "a.mp4", (moving(portrait, 6 * n, FACE, 480) for n in range(FRAMES // 6)))
    recipe = Recipe(batch_crops=3)
    first, seen = run(path, recipe, open_detector())
    second, again = run(path, recipe, open_detector())
    assert len(first) >= 3
    assert [encode_batch(batch) for batch in first] == [encode_batch(batch) for batch in second]
    assert seen == again


def test_a_batch_given_out_is_not_touched_again(clip: Path) -> None:
    batches = split(clip, replace(SHARP, sampling="all", batch_crops=4), Scripted(lambda n: [face(2.0 * n)]))
    given = [(batch, encode_batch(batch)) for batch in batches]
    assert len(given) == 5
    assert all(encode_batch(batch) == content for batch, content in given)


def test_a_split_can_be_done_again(clip: Path) -> None:
    splitting = split(clip, replace(SHARP, sampling="every:3"), Scripted(lambda n: [face(30), face(90)]))
    first, seen = [encode_batch(batch) for batch in splitting], splitting.summary
    assert [encode_batch(batch) for batch in splitting] == first
    assert splitting.summary == seen


def test_batches_come_while_the_video_is_read(clip: Path) -> None:
    looked_at: list[int] = []
    watching = Scripted(lambda n: looked_at.append(n) or [face(30)])  # type: ignore[func-returns-value]
    batches = iter(split(clip, replace(SHARP, sampling="all", batch_crops=4), watching))
    next(batches)
    assert looked_at == [0, 1, 2, 3]


def test_progress_is_told_frame_by_frame(clip: Path) -> None:
    told: list[tuple[int, int]] = []
    list(
        split(
            clip, replace(SHARP, sampling="every:5"), Scripted(lambda n: []), lambda done, of: told.append((done, of))
        )
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_damage_is_told_in_the_notes(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", frames=100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    _, seen = run(path, SHARP, Scripted(lambda n: []))
    assert seen.frames_read >= 1
    assert any("cut off" in note for note in seen.notes)


def test_what_is_no_video_is_refused_before_anything_is_split(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"words")
    with pytest.raises(BadVideo):
        split(tmp_path / "a.mp4", Recipe(), Scripted(lambda n: []))


def test_a_summary_is_plain_values(clip: Path) -> None:
    import json

    _, seen = run(clip, SHARP, Scripted(lambda n: []))
    values = json.loads(json.dumps(asdict(seen)))
    assert values["info"]["codec"] == "h264"
    assert values["rejected"] == {}


def test_a_recipe_survives_being_stored_and_knows_its_name() -> None:
    recipe = Recipe(sampling="fps:2", margin=0.2)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Recipe.from_json(recipe.to_json()).sha256 == recipe.sha256
    assert len(recipe.sha256) == 64


def test_every_value_of_a_recipe_and_its_version_change_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    changed: dict[str, Any] = {"sampling": "all", "detector": "haar", "max_frame_pixels": 5}
    names = {Recipe().sha256}
    for field in fields(Recipe):
        names.add(
            replace(Recipe(), **{field.name: changed.get(field.name) or getattr(Recipe(), field.name) + 0.25}).sha256
        )
    monkeypatch.setattr("farm.split.RECIPE_VERSION", 999)
    names.add(Recipe().sha256)
    assert len(names) == len(fields(Recipe)) + 2


@pytest.mark.parametrize("wrong", [{"sampling": "now and then"}, {"batch_crops": 0}, {"margin": -0.1}, {"margin": 9.0}])
def test_an_impossible_recipe_is_the_users_to_mend(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        Recipe(**wrong)


def test_a_stored_recipe_of_another_version_is_refused() -> None:
    with pytest.raises(BadInput, match="does not fit"):
        Recipe.from_json({"sampling": "all", "colour": "blue"})


def test_the_defaults_are_those_of_the_settings() -> None:
    settings = Settings(_env_file=None)
    shared = [field.name for field in fields(Recipe) if hasattr(settings, field.name)]
    assert len(shared) == len(fields(Recipe)) - 1, "all but the margin, which is the model card's"
    assert {name: getattr(Recipe(), name) for name in shared} == {name: getattr(settings, name) for name in shared}
