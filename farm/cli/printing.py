"""How things are shown: tables on stdout, progress on stderr (bars on a terminal, plain lines elsewhere), file names safe to print."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from farm.jobs.progress import Progress as ScanProgress

STYLES = {
    "FAKE": "bold red",
    "REAL": "green",
    "UNCERTAIN": "yellow",
    "NO_FACE": "dim",
    "UNREADABLE": "magenta",
    "PENDING": "dim",
}
PLAIN_WIDTH = 160
"""Columns of a table where stdout is no terminal."""
PLAIN_SECONDS = 5.0
"""Shortest time between two plain progress lines."""


def console(file: TextIO | None = None) -> Console:
    """A console on this file (default: stdout), wide where it is no terminal."""
    file = file or sys.stdout
    return Console(file=file, width=None if file.isatty() else PLAIN_WIDTH, highlight=False, emoji=False)


def printable(text: object) -> str:
    """One line whatever a file is called: control characters and undecodable bytes as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in str(text))


def cell(value: object, style: str = "") -> Text:
    """A table's cell: None is a dash, a float has three digits; nothing in it is taken for markup."""
    if value is None:
        return Text("-", style="dim", justify="right")
    if isinstance(value, float):
        return Text(f"{value:.3f}", style=style, justify="right")
    return Text(printable(value), style=style, justify="right" if isinstance(value, int) else "left")


def verdict_cell(verdict: str | None) -> Text:
    """The verdict in its colour."""
    verdict = verdict or "PENDING"
    return cell(verdict, STYLES.get(verdict, ""))


def table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A plain table; a cell may be ready-made Text."""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="bold", pad_edge=False, box=None)
    for name in columns:
        made.add_column(
            name,
            overflow="fold" if name in ("name", "why", "error", "notes") else "ellipsis",
            no_wrap=name == "verdict",
        )
    for row in rows:
        made.add_row(*(value if isinstance(value, Text) else cell(value) for value in row))
    return made


class Meter(Protocol):
    """Told how far a scan is."""

    def submitted(self, paths: int) -> None:
        """So many paths are hashed and stored."""

    def advanced(self, now: ScanProgress) -> None:
        """So many videos have a verdict, so many crops a score."""


@contextmanager
def meter() -> Iterator[Meter]:
    """Bars on a terminal, plain lines elsewhere; both on stderr."""
    screen = Console(stderr=True, highlight=False)
    if not screen.is_terminal:
        yield PlainMeter()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True) as progress:
        yield BarMeter(progress)


class BarMeter:
    """Two bars: videos with a verdict, crops with a score."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def submitted(self, paths: int) -> None:
        self._show("reading", paths, None)

    def advanced(self, now: ScanProgress) -> None:
        self._show("videos", now.videos_done, now.videos_total)
        self._show("crops", now.crops_done, now.crops_total)

    def _show(self, name: str, done: int, total: int | None) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total)
        self._progress.update(self._tasks[name], completed=done, total=total)


class PlainMeter:
    """A line now and then, and only when something moved."""

    def __init__(self) -> None:
        self._last = ""
        self._said_at = time.monotonic()

    def submitted(self, paths: int) -> None:
        self._say(f"{paths} read")

    def advanced(self, now: ScanProgress) -> None:
        self._say(
            f"{now.videos_done} of {now.videos_total} videos decided, {now.crops_done} of {now.crops_total} crops scored"
        )

    def _say(self, line: str) -> None:
        if line != self._last and time.monotonic() - self._said_at >= PLAIN_SECONDS:
            print(line, file=sys.stderr, flush=True)
            self._last, self._said_at = line, time.monotonic()
