"""Scores over time as SVG geometry. Takes any number of points in one pass and keeps at most a few per pixel; knows no SQL and no HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

WIDTH_PX, HEIGHT_PX = 960, 260
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 44, 16, 14, 34
BIN_PX = 2
"""Points of one track that fall into the same bin are drawn as their lowest and highest."""

LINES = 8
"""Tracks with a line of their own; the rest share one, so that a crowd stays readable."""

DOTS = 120
"""Up to this many points in all are also drawn as dots with a title each."""


@dataclass(frozen=True, slots=True)
class Point:
    """One score of one track."""

    pts_seconds: float
    p_fake: float


@dataclass(frozen=True, slots=True)
class Line:
    """One track's way through the plot."""

    #: 0-based rank of the line: chooses colour and dash
    rank: int
    name: str
    #: SVG path data
    path: str
    dots: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """All geometry of a timeline, in the units of its viewBox."""

    lines: tuple[Line, ...]
    #: (x, text) and (y, text) of the axis marks
    x_marks: tuple[tuple[float, str], ...]
    y_marks: tuple[tuple[float, str], ...]
    threshold_y: float
    real_below_y: float
    points_seen: int
    points_drawn: int


@dataclass(slots=True)
class Decimator:
    """The lowest and highest point per bin of `seconds_per_bin`: memory depends on the plot's width, not on the video's length."""

    seconds_per_bin: float
    seen: int = 0
    _bins: dict[int, tuple[Point, Point]] = field(default_factory=dict)

    def add(self, point: Point) -> None:
        self.seen += 1
        where = int(point.pts_seconds / self.seconds_per_bin)
        low, high = self._bins.get(where, (point, point))
        self._bins[where] = (point if point.p_fake < low.p_fake else low, point if point.p_fake > high.p_fake else high)

    def points(self) -> list[Point]:
        """What is left, in order of time."""
        kept = {point for pair in self._bins.values() for point in pair}
        return sorted(kept, key=lambda point: (point.pts_seconds, point.p_fake))


def plot(
    points: Iterable[tuple[int, float, float]],
    tracks: Sequence[int],
    *,
    end_seconds: float,
    threshold: float,
    real_below: float,
) -> Plot:
    """Geometry of a timeline from (track, pts_seconds, p_fake) in any order.

    `tracks` names those that get a line of their own, most fake first; all others share the last line.
    """
    own = {track: rank for rank, track in enumerate(tracks[:LINES])}
    end = max(end_seconds, 1e-3)
    bins = max(1, (WIDTH_PX - LEFT_PX - RIGHT_PX) // BIN_PX)
    lines: dict[int, Decimator] = {}
    for track, pts_seconds, p_fake in points:
        rank = own.get(track, LINES)
        lines.setdefault(rank, Decimator(end / bins)).add(Point(pts_seconds, p_fake))
    kept = {rank: lines[rank].points() for rank in sorted(lines)}
    drawn = sum(len(each) for each in kept.values())
    names = {rank: f"face {track}" for track, rank in own.items()} | {LINES: "all other faces"}
    return Plot(
        lines=tuple(_line(rank, names[rank], each, end, dots=drawn <= DOTS) for rank, each in kept.items()),
        x_marks=tuple((_x(at, end), clock(at)) for at in _ticks(end)),
        y_marks=tuple((_y(p), f"{p:g}") for p in (0.0, 0.25, 0.5, 0.75, 1.0)),
        threshold_y=_y(threshold),
        real_below_y=_y(real_below),
        points_seen=sum(each.seen for each in lines.values()),
        points_drawn=drawn,
    )


def clock(seconds: float) -> str:
    """A time as a reader of a player's clock writes it: 3.5 s, 1:05, 2:00:00."""
    if seconds < 59.95:
        return f"{seconds:.1f}".rstrip("0").rstrip(".") + " s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _line(rank: int, name: str, points: Sequence[Point], end: float, *, dots: bool) -> Line:
    where = [(_x(point.pts_seconds, end), _y(point.p_fake)) for point in points]
    path = "M" + "L".join(f"{x:g} {y:g}" for x, y in where)
    titles = [f"{name}, {clock(point.pts_seconds)}: {point.p_fake:.3f}" for point in points]
    marks = tuple((x, y, title) for (x, y), title in zip(where, titles, strict=True)) if dots else ()
    return Line(rank, name, path, marks)


def _x(seconds: float, end: float) -> float:
    share = min(max(seconds / end, 0.0), 1.0)
    return round(LEFT_PX + share * (WIDTH_PX - LEFT_PX - RIGHT_PX), 1)


def _y(p: float) -> float:
    return round(TOP_PX + (1 - p) * (HEIGHT_PX - TOP_PX - BOTTOM_PX), 1)


def _ticks(end: float) -> list[float]:
    """Five to ten round times from 0 to `end`."""
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
    step = next((each for each in steps if end / each <= 9), end / 8)
    return [round(i * step, 3) for i in range(int(end / step + 1e-9) + 1)]
