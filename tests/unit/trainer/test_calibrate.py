"""From logits to words."""

from __future__ import annotations

import numpy as np
import pytest

from farm.errors import BadInput
from trainer.calibrate import abstaining, calibrate, fit_sigmoid
from trainer.evaluate import Evaluation


def evaluation(shift: float, count: int = 1000) -> Evaluation:
    rng = np.random.default_rng(0)
    logits = np.concatenate([rng.normal(-shift, 1, count), rng.normal(shift, 1, count)])
    names, zeros = np.full(2 * count, "a"), np.zeros(2 * count)
    videos = np.arange(2 * count).astype(str)
    return Evaluation(
        videos, zeros.astype(int), names, names, np.arange(2 * count) >= count, logits, zeros, zeros, zeros, zeros
    )


def test_calibration_finds_the_sigmoid_that_made_the_labels() -> None:
    rng = np.random.default_rng(1)
    logits = rng.uniform(-5, 7, 20000)  # as many of either label: the fit takes both for equally likely
    fake = rng.random(20000) < 1 / (1 + np.exp(-(logits - 1.0) / 2.0))
    temperature, bias = fit_sigmoid(logits[~fake], logits[fake])
    assert temperature == pytest.approx(2.0, rel=0.1) and bias == pytest.approx(1.0, abs=0.15)


def test_a_few_samples_that_are_parted_do_not_end_in_certainty() -> None:
    temperature, _ = fit_sigmoid(np.array([-1.0, -2.0]), np.array([1.0, 2.0]))
    assert temperature > 0.3


def test_false_alarms_are_rare_on_the_harder_set_and_the_farm_abstains_in_between() -> None:
    easy, hard = evaluation(2.0), evaluation(0.5)
    found = calibrate([easy, hard])

    def probability(logits: np.ndarray) -> np.ndarray:
        return np.asarray(1 / (1 + np.exp(-(logits - found.bias) / found.temperature)))

    assert (probability(hard.real_logits) >= found.threshold).mean() <= 0.01
    assert (probability(hard.fake_logits) <= found.real_below).mean() <= 0.03
    assert found.real_below < found.threshold
    assert 0 < found.false_positive_rate <= 0.01


def test_a_margin_moves_the_threshold_up() -> None:
    assert calibrate([evaluation(1)], margin=1.0).threshold > calibrate([evaluation(1)], margin=0.0).threshold


def test_one_label_alone_calibrates_nothing() -> None:
    found = evaluation(1)
    found.fake[:] = True
    with pytest.raises(BadInput, match="reals and fakes"):
        calibrate([found])


def test_frames_of_a_few_videos_do_not_bound_the_false_alarms_as_so_many_videos_would() -> None:
    found = evaluation(3)
    found.videos[:] = np.arange(2000).astype(str)
    many = calibrate([found]).false_positive_rate
    found.videos[:] = np.repeat(np.arange(20), 100).astype(str)
    assert (many, calibrate([found]).false_positive_rate) == (0.003, 0.3)


def test_bounds_that_abstain_let_no_score_pass() -> None:
    closed = abstaining(calibrate([evaluation(1)]))
    assert (closed.threshold, closed.real_below) == (1.0, 0.0)


def test_who_may_not_say_real_never_does() -> None:
    found = calibrate([evaluation(2.0)], says_real=False)
    assert found.real_below == 0 and found.figures["reals_called_real"] == found.figures["fakes_called_real"] == 0
    assert found.threshold == calibrate([evaluation(2.0)]).threshold
