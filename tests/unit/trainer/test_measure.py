"""AUC, IoU and intervals."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.measure import auc, auc_interval, ellipse, iou
from trainer.swap_pairs import Twins, changes, figures


def test_auc_is_one_half_or_zero_where_it_must_be() -> None:
    low, high = np.array([0.0, 1.0]), np.array([2.0, 3.0])
    assert (auc(low, high), auc(high, low), auc(low, low)) == (1.0, 0.0, 0.5)


def test_auc_counts_a_tie_as_half() -> None:
    assert auc(np.array([1.0, 2.0]), np.array([2.0, 3.0])) == pytest.approx(3.5 / 4)


def test_the_interval_holds_the_figure_and_widens_with_fewer_persons() -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(0, 1, 400), rng.normal(1, 1, 400)
    many = auc_interval(real, fake, [str(i) for i in range(400)])
    few = auc_interval(real, fake, [str(i % 5) for i in range(400)])
    assert many[0] < auc(real, fake) < many[1]
    assert all(np.isfinite(few))
    by_person = np.repeat(rng.normal(0, 1.5, 5), 80)
    clumped = auc_interval(real + by_person, fake - by_person, [str(i // 80) for i in range(400)])
    assert clumped[1] - clumped[0] > many[1] - many[0]


def test_iou_is_the_share_of_the_union() -> None:
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    a[:, :2], b[:, 1:3] = True, True
    assert iou(a, b) == pytest.approx(1 / 3)
    assert np.isnan(iou(a & ~a, b & ~b))


def test_the_guessed_ellipse_fills_its_box() -> None:
    drawn = ellipse(np.array([50, 40, 150, 200], np.float32), 224) > 0.5
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (40, 199, 50, 149)
    assert drawn.sum() == pytest.approx(np.pi * 50 * 80, rel=0.01)


def twins(group: str, real: list[float], fake: list[float]) -> Twins:
    return Twins(group, np.array(real), np.array(fake), mask_iou=0.5, ellipse_iou=0.25)


def test_pairs_are_judged_by_frame_and_by_video_over_groups_of_people() -> None:
    found = figures([twins("a", [0.0, 3.0], [2.0, 2.0]), twins("b", [1.0], [4.0])])
    assert found["video_auc"] == 1.0
    assert found["frame_auc"] == pytest.approx(7 / 9, abs=1e-3)
    assert (found["pairs"], found["groups"], found["frames"]) == (2, 2, 6)
    assert found["fakes_above_their_own_real"] == "2 of 2"
    assert (found["mask_iou"], found["ellipse_iou"]) == (0.5, 0.25)


def test_changes_are_where_twins_differ_and_not_where_only_their_encoding_does() -> None:
    real = np.full((224, 224, 3), 120, np.uint8)
    fake = np.asarray(real + np.random.default_rng(0).integers(-4, 5, real.shape), np.uint8)
    fake[80:140, 80:140] = 200
    changed = changes(fake, real)
    assert changed[90:130, 90:130].all()
    assert not changed[:60].any()
