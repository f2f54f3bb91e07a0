"""The workers and the dispatcher of an embedded farm: forked from one process that imported everything once, and again when they die.

Importing Celery, SQLAlchemy and the decoders costs more than many a short scan; here it is paid once. The process that forks opens nothing:
no runtime, no SQL, no Redis.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from farm.embedded import EXIT_CANNOT_START
from farm.farm import Farm
from farm.jobs.dispatch import Dispatcher
from farm.queue import INFER_QUEUE, SPLIT_QUEUE, TRAIN_QUEUE, Doorbell, make_app
from farm.settings import settings
from workers.app import run_worker

log = logging.getLogger(__name__)

DISPATCH = "dispatch"
STOP_SECONDS = 3.0
LONGEST_PAUSE_SECONDS = 30.0
ORPHANS_SECONDS = 2.0
"""What killed workers leave has so long to end by itself."""
_DIE_WITH_PARENT, _NAME, _ADOPT_ORPHANS = 1, 15, 36
"""linux/prctl.h"""


@dataclass(slots=True)
class _Hand:
    """One worker and how its last start went."""

    queue: str
    concurrency: int = 1
    pid: int = 0
    started: float = 0.0
    pause: float = 0.5
    again_at: float = 0.0


def run_crew(hands: list[_Hand], *, events: bool) -> int:
    """Keep these workers running until SIGTERM; the exit status. EXIT_CANNOT_START where a worker says that it never can."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _prctl(_ADOPT_ORPHANS, 1)
    status = 0
    while not stopped and status != EXIT_CANNOT_START:
        for hand in hands:
            if hand.pid == 0 and time.monotonic() >= hand.again_at:
                _fork(hand, events=events)
        status = _reap(hands, block_seconds=0.5)
        if status:
            log.warning("a process of the crew ended with %s", status)
    _end(hands)
    return status if status == EXIT_CANNOT_START else 0


def _fork(hand: _Hand, *, events: bool) -> None:
    hand.started, parent = time.monotonic(), os.getpid()
    hand.pid = os.fork()
    if hand.pid:
        return
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        _prctl(_NAME, ctypes.c_char_p(f"farm-{hand.queue}".encode()))
        _prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        if hand.queue == DISPATCH:
            status = run_dispatcher()
        else:
            status = run_worker(hand.queue, concurrency=hand.concurrency, events=events, sole=True, loglevel="WARNING")
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        log.exception("the %s worker ended", hand.queue)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def run_dispatcher() -> int:
    """Dispatch until killed. A line on standard input says that rows were submitted; its end, that the farm is gone."""
    farm = Farm.open(settings())
    dispatcher = Dispatcher(farm, Doorbell(make_app(settings().redis_url)))

    def listen() -> None:
        for _ in sys.stdin:
            dispatcher.wake()
        dispatcher.stop()

    threading.Thread(target=listen, name="wake", daemon=True).start()
    dispatcher.run()
    return 0


def _reap(hands: list[_Hand], block_seconds: float) -> int:
    """Note who died within this time; the exit status of one of them, 0 where none died."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        pid, status = 0, 0
    if pid == 0:
        signal.sigtimedwait({signal.SIGCHLD}, block_seconds)
        return 0
    code = os.waitstatus_to_exitcode(status)
    for hand in hands:
        if hand.pid == pid:
            hand.pid = 0
            hand.pause = 0.5 if time.monotonic() - hand.started > 60 else min(hand.pause * 2, LONGEST_PAUSE_SECONDS)
            hand.again_at = time.monotonic() + hand.pause
            return code
    return 0


def _end(hands: list[_Hand]) -> None:
    """Stop every worker and reap what is left of it. A card is closed politely; the others have nothing to close and are killed."""
    for hand in hands:
        _signal(hand, signal.SIGTERM if hand.queue == INFER_QUEUE else signal.SIGKILL)
    deadline = time.monotonic() + STOP_SECONDS
    while any(hand.pid for hand in hands) and time.monotonic() < deadline:
        _reap(hands, block_seconds=0.05)
    for hand in hands:
        _signal(hand, signal.SIGKILL)
    deadline = time.monotonic() + ORPHANS_SECONDS
    while _still_children():
        if time.monotonic() > deadline:
            _kill_orphans()
        time.sleep(0.005)


def _signal(hand: _Hand, number: int) -> None:
    if hand.pid:
        try:
            os.kill(hand.pid, number)
        except ProcessLookupError:
            pass


def _kill_orphans() -> None:
    """Kill what a killed worker left: two children of a pool that was just being started keep each other's pipes open, and wait."""
    try:
        orphans = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    except OSError:
        return
    for pid in orphans:
        os.kill(int(pid), signal.SIGKILL)  # ours until it is reaped, so that the number is no other's


def _still_children() -> bool:
    """Reap whoever is dead; grandchildren of a killed worker die with it and end up here."""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def _prctl(option: int, value: int | ctypes.c_char_p) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


def _import_everything() -> None:
    """Modules that every worker needs, without opening anything in them."""
    import kombu.transport.redis  # noqa: F401

    import workers.tasks  # noqa: F401


def main(argv: list[str] | None = None) -> int:
    """`python -m workers.crew --split N --infer N`: imports, waits for a line on standard input, then works."""
    parser = argparse.ArgumentParser(prog="workers.crew")
    parser.add_argument("--split", type=int, default=1)
    parser.add_argument("--infer", type=int, default=2)
    parser.add_argument("--train", action="store_true", help="train networks too, on FARM_TRAINING_DEVICE")
    parser.add_argument("--events", action="store_true")
    chosen = parser.parse_args(argv)
    _import_everything()
    if not sys.stdin.readline():
        return 0
    gc.freeze()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    hands = [_Hand(DISPATCH), _Hand(SPLIT_QUEUE, chosen.split), _Hand(INFER_QUEUE, chosen.infer)]
    hands += [_Hand(TRAIN_QUEUE)] if chosen.train else []
    return run_crew(hands, events=chosen.events)


if __name__ == "__main__":
    sys.exit(main())
