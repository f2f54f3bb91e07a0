"""Sampling policies as strings and as times."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.errors import BadInput
from farm.media.sampling import Sampling, parse_sampling, target_times


@pytest.mark.parametrize(
    ("text", "sampling"),
    [
        ("keyframes", Sampling("keyframes")),
        ("all", Sampling("all")),
        ("fps:2.5", Sampling("fps", 2.5)),
        (" every:10 ", Sampling("every", 10)),
        ("uniform:32", Sampling("uniform", 32)),
    ],
)
def test_a_policy_is_read_and_written_alike(text: str, sampling: Sampling) -> None:
    assert parse_sampling(text) == sampling
    assert str(sampling) == text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "frames",
        "keyframes:2",
        "KEYFRAMES",
        "all:",
        "fps",
        "fps:",
        "fps:0",
        "fps:-1",
        "fps:nan",
        "fps:inf",
        "fps:1000",
    ],
)
def test_anything_else_is_refused_with_the_known_policies(text: str) -> None:
    with pytest.raises(BadInput, match="not one of keyframes, fps:X"):
        parse_sampling(text)


def test_fps_is_a_grid_and_uniform_the_middles_of_equal_spans() -> None:
    none = np.empty(0)
    assert target_times(parse_sampling("fps:2"), none, 2.1).tolist() == [0, 0.5, 1, 1.5, 2]
    assert target_times(parse_sampling("uniform:4"), none, 8.0).tolist() == [1, 3, 5, 7]


@pytest.mark.parametrize(
    "text",
    ["fps:2:3", "every", "every:0", "every:1.5", "every:x", "every:99999999", "uniform", "uniform:0", "uniform:-3"],
)
def test_numbers_that_no_policy_can_have_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="not one of"):
        parse_sampling(text)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60), st.floats(0, 30))
def test_key_frame_targets_leave_no_gap_and_crowd_nowhere(times: list[float], tail: float) -> None:
    keyframes = np.sort(np.array([0.0, *times]))
    end = float(keyframes[-1] + tail)
    targets = target_times(Sampling("keyframes"), keyframes, end)
    longest = min(2.0, end / 8)
    closest = min(0.5, longest / 2)
    assert targets[0] == 0
    assert np.diff(targets).min(initial=np.inf) > 0
    assert np.diff([*targets, end]).max() <= longest + 1e-5
    assert len(targets) <= 2 + end / closest * 2 if closest > 1e-4 else True
    assert len(targets) >= 8 or end < 1e-4


def test_dense_key_frames_are_thinned_and_each_target_is_one() -> None:
    keyframes = np.arange(0, 60, 0.04)
    targets = target_times(Sampling("keyframes"), keyframes, 60.0)
    assert set(targets) <= set(keyframes)
    assert np.diff(targets).min() >= 0.5 - 1e-6
    assert len(targets) >= 110


def test_key_frames_near_enough_are_taken_as_they_are() -> None:
    keyframes = np.array([0, 1.7, 3.1, 5.0, 6.9, 8.8, 10.2, 12.0, 13.9])
    assert target_times(Sampling("keyframes"), keyframes, 15.5).tolist() == keyframes.tolist()
