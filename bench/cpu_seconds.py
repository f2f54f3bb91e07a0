"""CPU-seconds of a command with all it starts: children, grand-children, daemons, and those that are killed.

This process becomes the reaper of orphans (PR_SET_CHILD_SUBREAPER, Linux), so that whatever outlives its parent is waited for, and
counted, here. A process whose parent ignores SIGCHLD is in nobody's account; /proc is therefore read as it runs, and the larger sum holds.
"""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
"""linux/prctl.h"""
LOOK_EVERY_SECONDS = 0.5


@dataclass(frozen=True)
class Counted:
    """A command that has ended."""

    stdout: str
    #: user and system time of all its processes
    cpu_seconds: float


def run_counted(command: Sequence[str | Path], env: dict[str, str] | None = None) -> Counted:
    """Run a command to its end, stderr passed through. Raises SystemExit if it fails. Nothing else may be started meanwhile."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise SystemExit("this needs Linux: prctl(PR_SET_CHILD_SUBREAPER) failed")
    before = _waited_for_seconds()
    with _Watch() as watch:
        process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True, env=env)
        stdout = process.communicate()[0]
        _reap_orphans()
    if process.returncode:
        sys.stdout.write(stdout)
        raise SystemExit(f"{' '.join(str(word) for word in command)} ended with exit code {process.returncode}")
    seconds = max(_waited_for_seconds() - before, watch.seconds())
    return Counted(stdout, seconds)


def family_cpu_seconds() -> float:
    """User and system time so far of this process, its living descendants, and those of their children that are dead and waited for."""
    return sum(process_cpu_seconds(pid) for pid in family(os.getpid()))


def process_cpu_seconds(pid: int) -> float:
    """User and system time so far of one process and of its children that are dead and waited for; 0 where it is gone."""
    return _all_ticks(pid) / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and its descendants; threads and processes that end while we look are left out."""
    children: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                children += [int(word) for word in (task / "children").read_text().split()]
    return [pid, *(member for child in children for member in family(child))]


def _all_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(int(field) for field in fields[11:15])


def _waited_for_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _reap_orphans() -> None:
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


class _Watch:
    """Looks at every descendant now and then and keeps the last CPU time seen of each."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def seconds(self) -> float:
        return sum(self._seen.values())

    def _look_on(self) -> None:
        while not self._ended.wait(LOOK_EVERY_SECONDS):
            self._look()

    def _look(self) -> None:
        ticks_per_second = os.sysconf("SC_CLK_TCK")
        rows = {row[0]: row for path in Path("/proc").glob("[0-9]*") if (row := _stat(path))}
        family = {os.getpid()}
        grown = True
        while grown:
            children = {pid for pid, row in rows.items() if row[1] in family} - family
            grown = bool(children)
            family |= children
        for pid in family - {os.getpid()}:
            _, _, ticks, started = rows[pid]
            self._seen[pid, started] = ticks / ticks_per_second


def _stat(path: Path) -> tuple[int, int, int, int] | None:
    """Number, parent, CPU ticks and start time of a process, see proc(5); None if it is gone."""
    try:
        fields = (path / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(path.name), int(fields[1]), int(fields[11]) + int(fields[12]), int(fields[19])
