"""AUC, IoU and intervals."""

from __future__ import annotations

import numpy as np
import pytest

from trainer import measure
from trainer.measure import Floats, auc, ellipse, interval, iou


def test_auc_is_one_half_or_zero_where_it_must_be() -> None:
    low, high = np.array([0.0, 1.0]), np.array([2.0, 3.0])
    assert (auc(low, high), auc(high, low), auc(low, low)) == (1.0, 0.0, 0.5)


def test_auc_counts_a_tie_as_half() -> None:
    assert auc(np.array([1.0, 2.0]), np.array([2.0, 3.0])) == pytest.approx(3.5 / 4)


def auc_interval(real: Floats, fake: Floats, groups: list[str]) -> tuple[float, float]:
    """Of twins: real[i] and fake[i] belong to groups[i]."""
    return interval(lambda rows: auc(real[rows], fake[rows]), groups)


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


def test_the_roc_of_two_by_two_scores_is_what_a_hand_draws() -> None:
    false, true, thresholds = measure.roc(np.array([0.0, 2.0]), np.array([1.0, 3.0]))
    assert thresholds.tolist() == [3, 2, 1, 0]
    assert false.tolist() == [0, 0.5, 0.5, 1] and true.tolist() == [0.5, 0.5, 1, 1]


def test_the_equal_error_rate_is_where_misses_and_false_alarms_meet() -> None:
    assert measure.eer(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == 0
    assert measure.eer(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1
    assert measure.eer(np.array([0.0, 2.0]), np.array([1.0, 3.0])) == pytest.approx(0.5)


def test_average_precision_is_one_where_all_fakes_come_first() -> None:
    assert measure.average_precision(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == 1
    # fake, real, fake, real: precision 1 at the first half of the recall, 2/3 at the second
    assert measure.average_precision(np.array([0.0, 2.0]), np.array([1.0, 3.0])) == pytest.approx(5 / 6)


def test_a_threshold_lets_no_more_reals_through_than_allowed() -> None:
    real, fake = np.arange(100.0), np.array([50.0, 95.5, 98.5, 120.0])
    assert measure.at_false_positives(real, fake, 0.05) == (95.0, 0.75)
    threshold, found = measure.at_false_positives(real, np.array([1.0]), 0.0)
    assert threshold > 99 and found == 0


def test_probabilities_that_keep_their_word_have_no_calibration_error() -> None:
    p, fake = np.repeat([0.25, 0.75], 400), np.tile([True, False, False, False], 100)
    fake = np.concatenate([fake, ~fake])
    assert measure.calibration_error(p, fake) == pytest.approx(0)
    assert measure.calibration_error(1 - p, fake) == pytest.approx(0.5)


def test_log_loss_of_a_coin_is_the_log_of_two_and_certainty_in_error_stays_finite() -> None:
    fake = np.array([True, False])
    assert measure.log_loss(np.array([0.5, 0.5]), fake) == pytest.approx(np.log(2))
    assert 20 < measure.log_loss(np.array([0.0, 1.0]), fake) < 30


def test_dice_counts_the_common_part_twice() -> None:
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    a[:, :2], b[:, 1:3] = True, True
    assert measure.dice(a, b) == pytest.approx(0.5)
    assert np.isnan(measure.dice(a & ~a, a & ~a))


def test_one_group_alone_gives_no_interval() -> None:
    assert np.isnan(measure.interval(lambda rows: 1.0, ["one", "one", "one"])).all()
