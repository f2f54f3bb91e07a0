"""AUC and EER against numbers worked out by hand, and against their definitions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.db.ranking import auc, eer

scores = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("fake", "real", "area", "equal_error"),
    [
        ([0.9, 0.8], [0.1, 0.2], 1.0, 0.0),
        ([0.1, 0.2], [0.8, 0.9], 0.0, 1.0),
        ([0.5, 0.5], [0.5], 0.5, 0.5),
        ([0.9, 0.5, 0.9], [0.1, 0.6], 5 / 6, 1 / 3),
        ([0.9, 0.4], [0.4, 0.1], 3.5 / 4, 0.25),
        ([0.7], [0.3], 1.0, 0.0),
    ],
)
def test_known_scores_give_the_numbers_worked_out_by_hand(
    fake: list[float], real: list[float], area: float, equal_error: float
) -> None:
    assert auc(fake, real) == pytest.approx(area)
    assert eer(fake, real) == pytest.approx(equal_error)


@pytest.mark.parametrize(("fake", "real"), [([], []), ([0.5], []), ([], [0.5])])
def test_without_both_classes_neither_is_defined(fake: list[float], real: list[float]) -> None:
    assert auc(fake, real) is None
    assert eer(fake, real) is None


@given(fake=scores, real=scores)
def test_auc_is_the_share_of_pairs_in_the_right_order(fake: list[float], real: list[float]) -> None:
    pairs = [(f > r) + (f == r) / 2 for f in fake for r in real]
    assert auc(fake, real) == pytest.approx(float(np.mean(pairs)))


@given(fake=scores, real=scores)
def test_mirrored_scores_mirror_both_numbers(fake: list[float], real: list[float]) -> None:
    mirrored = [-score for score in fake], [-score for score in real]
    assert auc(*mirrored) == pytest.approx(1 - auc(fake, real))
    assert eer(*mirrored) == pytest.approx(1 - eer(fake, real))


@given(fake=scores, real=scores)
def test_the_equal_error_rate_lies_between_the_errors_at_some_neighbouring_thresholds(
    fake: list[float], real: list[float]
) -> None:
    found = eer(fake, real)
    points = [
        (float(np.mean(np.array(real) >= cut)), float(np.mean(np.array(fake) < cut)))
        for cut in [2.0, *sorted({*fake, *real}, reverse=True)]
    ]
    assert any(
        min(a0, a1) - 1e-9 <= found <= max(a0, a1) + 1e-9 and min(m0, m1) - 1e-9 <= found <= max(m0, m1) + 1e-9
        for (a0, m0), (a1, m1) in pairwise(points)
    )
