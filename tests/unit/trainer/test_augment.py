"""Augmentation falls on reals and fakes alike."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from unit.trainer.drawn_faces import draw_face

from trainer import augment
from trainer.augment import PLAIN, video_like


def test_a_recipe_is_drawn_without_knowing_the_label_and_gives_twins_the_same_pixels() -> None:
    face = draw_face(0)
    for seed in range(12):
        recipe = augment.draw(np.random.default_rng(seed))
        assert np.array_equal(augment.apply(recipe, face), augment.apply(recipe, face.copy()))


def test_the_plain_recipe_changes_nothing() -> None:
    face = draw_face(1)
    assert np.array_equal(augment.apply(PLAIN, face), face)


@pytest.mark.parametrize("side", [224, 131])
def test_more_compression_loses_more(side: int) -> None:
    face = draw_face(2)[:side, :side]

    def loss(image: np.ndarray) -> float:
        return float(np.abs(image.astype(int) - face).mean())

    assert 0 < loss(augment.h264(face, 18)) < loss(augment.h264(face, 38)) < 30
    assert 0 < loss(augment.jpeg(face, 95)) < loss(augment.jpeg(face, 30)) < 30


def test_a_compressed_picture_stays_where_it_was() -> None:
    face = draw_face(3)
    back = augment.h264(face, 20).astype(int)
    here = np.abs(back - face).mean()
    assert all(here < np.abs(np.roll(back, shift, axis=1) - face).mean() for shift in (-1, 1))


def test_a_mask_moves_with_its_picture() -> None:
    square = np.zeros((224, 224), np.float32)
    square[80:120, 30:70] = 1
    picture = np.repeat((square * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    recipe = dataclasses.replace(PLAIN, flip=True, window=(0.02, 0.05, 0.93))
    moved_mask, moved_picture = augment.move(recipe, square), augment.apply(recipe, picture)
    assert (moved_mask > 0.5)[:, 112:].any() and not (moved_mask > 0.5)[:, :112].any()
    assert np.array_equal(moved_mask > 0.5, moved_picture[:, :, 0] > 127)


def test_recipes_cover_every_kind_of_harm() -> None:
    recipes = [augment.draw(np.random.default_rng(i)) for i in range(300)]
    codecs = {g[0] for r in recipes for g in r.generations}
    assert codecs == {"jpeg", "h264"}
    assert {len(r.generations) for r in recipes} == {0, 1, 2, 3}
    assert any(r.grey for r in recipes) and any(r.noise for r in recipes)
    assert any(r.blur > 0 for r in recipes) and any(r.blur < 0 for r in recipes)
    assert min(r.native_px for r in recipes) < 110 and max(r.native_px for r in recipes) == 224


def test_the_video_like_recipe_always_compresses_twice_at_a_small_side() -> None:
    recipe = video_like(np.random.default_rng(0))
    assert [g[0] for g in recipe.generations] == ["h264", "h264"]
    assert recipe.native_px < 150
