"""A fake differs from its original where its mask says so, and nowhere else."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from unit.trainer.drawn_faces import FIVE_POINTS, draw_face

from trainer import blend


def view(seed: int) -> blend.View:
    face = draw_face(seed)
    return blend.View(face, FIVE_POINTS, np.full((96, 96, 3), 128, np.uint8))


@pytest.mark.parametrize("kind", blend.KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_pixels_outside_the_mask_are_those_of_the_original(kind: str, seed: int) -> None:
    target = view(1)
    fake, alpha = blend.make_fake(target, view(2), kind, np.random.default_rng(seed))
    assert (alpha == 0).any()
    assert np.array_equal(fake[alpha == 0], target.crop[alpha == 0])


@pytest.mark.parametrize("kind", blend.KINDS)
def test_pixels_inside_the_mask_change(kind: str) -> None:
    target = view(1)
    fake, alpha = blend.make_fake(target, view(2), kind, np.random.default_rng(0))
    inside = alpha > 0.6
    changed = np.abs(fake.astype(int) - target.crop).max(axis=2)[inside] > 0
    assert changed.mean() > 0.5


def test_a_mask_lies_on_the_face_and_covers_a_sensible_part_of_the_crop() -> None:
    masks = np.stack([blend.soft_mask(FIVE_POINTS, 224, np.random.default_rng(i)) for i in range(40)])
    areas = (masks > blend.MANIPULATED_ABOVE).mean(axis=(1, 2))
    assert areas.min() > 0.02 and areas.max() < 0.7
    y, x = np.mgrid[0:224, 0:224]
    centre = np.array([(masks * x).sum() / masks.sum(), (masks * y).sum() / masks.sum()])
    assert np.abs(centre - FIVE_POINTS.mean(axis=0)).max() < 25


def test_no_two_masks_are_alike() -> None:
    first, second = (blend.soft_mask(FIVE_POINTS, 224, np.random.default_rng(i)) for i in (1, 2))
    assert np.abs(first - second).max() > 0.5


def test_the_same_seed_makes_the_same_fake() -> None:
    once, again = (blend.make_fake(view(1), view(2), "donor", np.random.default_rng(3))[0] for _ in range(2))
    assert np.array_equal(once, again)


def test_an_aligned_donor_has_its_points_on_those_of_the_target() -> None:
    donor = draw_face(5)
    moved_points = FIVE_POINTS * 0.8 + 15
    small = np.zeros_like(donor)
    small[15 : 15 + 179, 15 : 15 + 179] = donor[np.ix_(*(np.minimum(223, np.arange(179) / 0.8).astype(int),) * 2)]
    back = blend.align(small, moved_points.astype(np.float32), blend.View(donor, FIVE_POINTS))
    inner = (slice(60, 180), slice(60, 160))
    assert np.abs(back[inner].astype(int) - donor[inner]).mean() < 8


def test_matching_colours_gives_a_region_the_mean_of_its_goal() -> None:
    inner, goal = np.full((32, 32, 3), (200, 90, 60), np.uint8), np.full((32, 32, 3), (90, 120, 160), np.uint8)
    matched = blend.match_colour(inner, goal, np.ones((32, 32), bool), strength=1.0)
    assert np.abs(matched.astype(int) - goal).max() <= 4


@pytest.mark.parametrize("sigma", [2.0, 4.0])
def test_a_soft_face_gets_as_much_fine_detail_as_the_one_it_is_laid_on(sigma: float) -> None:
    target, where = draw_face(1), np.zeros((224, 224), np.bool_)
    target = (target + np.random.default_rng(0).normal(0, 6, target.shape)).clip(0, 255).astype(np.uint8)
    where[60:180, 60:160] = True
    soft = cv2.GaussianBlur(draw_face(2), (0, 0), sigma)

    def detail(face: blend.Pixels) -> float:
        return float((face - cv2.GaussianBlur(face.astype(np.float32), (0, 0), 1.5))[where].std())

    matched = blend.match_detail(soft, target, where, np.random.default_rng(0))
    assert 1.4 * detail(soft) < detail(matched) < 1.35 * detail(target)
    calmed = blend.match_detail(target, soft, where, np.random.default_rng(0))
    assert detail(calmed) < 0.75 * detail(target), "nor is it sharper than what it is laid on"
