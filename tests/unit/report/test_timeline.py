"""The timeline's geometry: true to the extremes, whatever the length."""

import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.report.timeline import HEIGHT_PX, LINES, WIDTH_PX, Decimator, Plot, Point, clock, plot

scores = st.lists(st.tuples(st.integers(0, 12), st.floats(0, 7200), st.floats(0, 1)), max_size=60)


def drawn(
    points: list[tuple[int, float, float]] | Iterator[tuple[int, float, float]], tracks: list[int], end: float = 7200.0
) -> Plot:
    return plot(points, tracks, end_seconds=end, threshold=0.9, real_below=0.1)


def test_two_hours_of_scores_leave_a_few_points_per_pixel_and_keep_the_peak() -> None:
    many = ((0, i * 0.04, 0.999 if i == 91_234 else 0.2) for i in range(180_000))
    timeline = drawn(many, [0])
    assert timeline.points_seen == 180_000
    assert timeline.points_drawn <= 2 * WIDTH_PX
    highest = min(float(y) for y in re.findall(r" ([\d.]+)", timeline.lines[0].path))
    assert highest == pytest.approx(drawn([(0, 0.0, 0.999)], [0]).lines[0].dots[0][1])


@given(st.lists(st.tuples(st.floats(0, 7200), st.floats(0, 1)), min_size=1, max_size=200))
def test_decimation_keeps_the_lowest_and_the_highest(values: list[tuple[float, float]]) -> None:
    decimator = Decimator(seconds_per_bin=500.0)
    for pts_seconds, p_fake in values:
        decimator.add(Point(pts_seconds, p_fake))
    kept = [point.p_fake for point in decimator.points()]
    assert min(kept) == min(p for _, p in values)
    assert max(kept) == max(p for _, p in values)
    assert [point.pts_seconds for point in decimator.points()] == sorted(
        point.pts_seconds for point in decimator.points()
    )


@given(scores)
def test_every_line_stays_inside_the_picture(points: list[tuple[int, float, float]]) -> None:
    for line in drawn(points, [0, 1, 2]).lines:
        for x, y in re.findall(r"([\d.]+) ([\d.]+)", line.path):
            assert 0 <= float(x) <= WIDTH_PX
            assert 0 <= float(y) <= HEIGHT_PX


def test_a_crowd_shares_the_last_line() -> None:
    timeline = drawn([(track, 1.0, 0.5) for track in range(40)], list(range(40)))
    assert [line.name for line in timeline.lines] == [f"face {n}" for n in range(LINES)] + ["all other faces"]


def test_a_higher_score_is_drawn_higher_and_the_threshold_above_the_lower_bound() -> None:
    timeline = drawn([(0, 1.0, 0.95), (1, 1.0, 0.05)], [0, 1])
    high, low = (line.dots[0][1] for line in timeline.lines)
    assert high < timeline.threshold_y < timeline.real_below_y < low


def test_a_video_without_length_still_has_a_timeline() -> None:
    timeline = drawn([(0, 0.0, 0.5)], [0], end=0.0)
    assert timeline.lines[0].dots[0][2] == "face 0, 0 s: 0.500"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (3.5, "3.5 s"), (59.97, "1:00"), (65, "1:05"), (7200, "2:00:00")]
)
def test_times_are_written_as_a_player_writes_them(seconds: float, text: str) -> None:
    assert clock(seconds) == text
