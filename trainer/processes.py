"""Work spread over processes, of which any may die. Knows functions and tasks, no video.

A pool of the standard library breaks as a whole when one of its processes dies. Whatever was in the pool then is tried once more, each
alone in a process of its own: what dies again is a failed task, the rest goes on.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Generic, TypeVar

from farm.errors import FarmError

T = TypeVar("T")
R = TypeVar("R")
AHEAD = 2
"""Tasks in the pool per process: one runs, one waits, so that no process idles between two."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A task that failed twice, the second time alone."""

    reason: str
    detail: str


def each(work: Callable[[T], R], tasks: Sequence[T], processes: int) -> Iterator[tuple[T, R | Failed]]:
    """Do every task, in this order as processes get free; give each with its result as it is done.

    `work`, tasks and results are pickled. A FarmError raised by a task is raised here and ends everything, another error or the death
    of the process is `Failed`. Leaving the loop, by a KeyboardInterrupt too, ends the processes at once.
    """
    crew, waiting, again = _Crew[T, R](work, processes), deque(tasks), list[T]()
    try:
        while waiting or crew.running:
            while waiting and len(crew.running) < AHEAD * processes:
                crew.start(waiting.popleft())
            for task, outcome in crew.finished():
                if isinstance(outcome, Failed):
                    again.append(task)
                else:
                    yield task, outcome
    finally:
        crew.end()
    for task in again:
        yield task, _alone(work, task)


def _alone(work: Callable[[T], R], task: T) -> R | Failed:
    crew = _Crew[T, R](work, 1)
    try:
        crew.start(task)
        return next(crew.finished())[1]
    finally:
        crew.end()


class _Crew(Generic[T, R]):
    """A pool that is replaced when it breaks."""

    def __init__(self, work: Callable[[T], R], processes: int) -> None:
        self._work, self._processes = work, processes
        self.running: dict[Future[R], T] = {}
        self._pool, self._leash = _pool(processes)

    def start(self, task: T) -> None:
        try:
            future = self._pool.submit(self._work, task)
        except BrokenProcessPool:
            self.end()
            self._pool, self._leash = _pool(self._processes)
            future = self._pool.submit(self._work, task)
        self.running[future] = task

    def finished(self) -> Iterator[tuple[T, R | Failed]]:
        """What has ended, after waiting for at least one."""
        done, _ = wait(self.running, return_when=FIRST_COMPLETED)
        for future in done:
            task = self.running.pop(future)
            error = future.exception()
            if isinstance(error, FarmError):
                raise error
            if isinstance(error, BrokenProcessPool):
                yield task, Failed("the process that read it died", str(error))
            elif error is not None:
                yield task, Failed("it cannot be worked on", f"{type(error).__name__}: {error}")
            else:
                yield task, future.result()

    def end(self) -> None:
        """End all processes now, whatever they are doing."""
        self._leash.close()
        self._pool.shutdown(wait=True, cancel_futures=True)


def _pool(processes: int) -> tuple[ProcessPoolExecutor, Connection]:
    context = get_context("spawn")  # runtimes that are open do not survive a fork
    held, leash = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(held,))
    return pool, leash


def _begin(held: Connection) -> None:
    """In a new process: one thread for each library, no Ctrl-C of its own, and an end as soon as the parent closes its pipe or dies."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with, args=(held,), daemon=True).start()


def _end_with(held: Connection) -> None:
    held.poll(None)
    os._exit(1)
