"""One worker process per card of this host: started when the card appears, started again when it ends, ended when the card is gone.

Knows processes and the bus; what a worker does with its card is its own business (watch.py). A kill of this process ends its workers.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from farm.embedded import EXIT_CANNOT_START
from farm.errors import EngineBusy, EngineMissing, FarmError
from farm.farm import Farm
from farm.jobs.cards import mark_gone
from farm.jobs.claim import release_worker
from farm.settings import Settings
from workers.cards.find import FoundCard, find_cards
from workers.cards.sensors import read_host
from workers.cards.watch import gone

log = logging.getLogger(__name__)

TICK_SECONDS = 0.2
SHORTEST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
LONG_LIFE_SECONDS = 60.0
"""A worker that lived longer is started again without delay."""
_DIE_WITH_PARENT = 1
"""linux/prctl.h"""


@dataclass(slots=True)
class _Hand:
    """One card's worker and how its last start went."""

    bdf: str
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = SHORTEST_PAUSE_SECONDS
    again_at: float = 0.0
    #: when it was told to end; 0: it was not
    told_at: float = 0.0
    #: the card left the bus
    gone: bool = False
    #: SQL is still to be told so
    untold: bool = field(default=False)


class Supervisor:
    """Runs until `stop` is called, then until its workers have ended."""

    def __init__(self, farm: Farm, options: Sequence[str] = ()) -> None:
        """`options` are given on to each `python -m workers.app infer --card BDF`."""
        self._farm, self._chosen, self._options = farm, farm.settings, list(options)
        self._hands: dict[str, _Hand] = {}
        self._order: list[str] = []
        self._stopping = threading.Event()
        self._scanned_at = -1e9
        self._said = ""
        self._children_die_with_us = _dies_with_parent()

    def stop(self) -> None:
        """Pass the end on: workers finish what they hold and take no more."""
        self._stopping.set()

    def run(self) -> int:
        """The exit status: 0. Raises EngineMissing where this host's bus cannot be asked at all."""
        self._scan(first=True)
        while not self._stopping.wait(TICK_SECONDS):
            if time.monotonic() - self._scanned_at >= self._chosen.card_scan_seconds:
                self._scan()
            for hand in list(self._hands.values()):
                self._tend(hand)
        for hand in self._hands.values():
            self._tell_to_end(hand)
        while any(hand.process for hand in self._hands.values()):
            time.sleep(TICK_SECONDS)
            for hand in self._hands.values():
                self._reap(hand)
        return 0

    def pids(self) -> dict[str, int]:
        """Process of each card's worker that runs now."""
        return {bdf: hand.process.pid for bdf, hand in self._hands.items() if hand.process}

    def _scan(self, *, first: bool = False) -> None:
        """See which cards came and went."""
        self._scanned_at = time.monotonic()
        try:
            found = find_cards(self._chosen)
        except (EngineMissing, EngineBusy) as error:
            if first and isinstance(error, EngineMissing):
                raise
            self._say_once(f"this host's cards cannot be listed: {error}")
            return
        present = {card.bdf: card for card in found}
        if not present and not self._hands:
            self._say_once("no card on this host's bus: none is listed by `lspci -d 10ee:`; waiting for one")
        if sorted(present) != self._order:
            self._order = self._runtime_order(found)
        for bdf in sorted(present.keys() - self._hands.keys()):
            log.info("card %s is there: it gets a worker", bdf)
            self._hands[bdf] = _Hand(bdf)
        for bdf, hand in self._hands.items():
            if bdf in present and hand.gone and hand.process is None:
                log.info("card %s is back: it gets a worker", bdf)
                self._hands[bdf] = _Hand(bdf)
            elif bdf not in present and not hand.gone:
                self._left(hand)

    def _left(self, hand: _Hand) -> None:
        log.error("%s", gone(hand.bdf))
        hand.gone = hand.untold = True
        self._tell_to_end(hand)

    def _tend(self, hand: _Hand) -> None:
        """Whatever one card's worker needs now."""
        self._reap(hand)
        if hand.untold:
            hand.untold = not self._told(lambda: mark_gone(self._farm, socket.gethostname(), hand.bdf, gone(hand.bdf)))
        if hand.process is None and not hand.gone and time.monotonic() >= hand.again_at:
            self._start(hand)

    def _start(self, hand: _Hand) -> None:
        command = [sys.executable, "-m", "workers.app", "infer", "--card", hand.bdf, *self._options]
        environment = {**os.environ, **self._environment(hand)}  # noqa: TID251  a child's, built on our own
        hand.started, hand.told_at = time.monotonic(), 0.0
        hand.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            preexec_fn=self._children_die_with_us,  # noqa: PLW1509  one system call, loaded before
            start_new_session=True,
        )
        log.info("card %s: worker %s started", hand.bdf, hand.process.pid)

    def _environment(self, hand: _Hand) -> dict[str, str]:
        """What pins the worker to its card. The index is verified by the card's process once the runtime tells what it opened."""
        pinned = {"FARM_ENGINE": self._chosen.engine, "FARM_VART_DEVICE": hand.bdf, "FARM_METRICS_PORT": "0"}
        if len(self._order) > 1 and self._chosen.engine == "vart":
            pinned["FARM_VART_DEVICE_INDEX"] = str(self._order.index(hand.bdf))
        return pinned

    def _reap(self, hand: _Hand) -> None:
        """Note a worker that ended, or kill one that was told to and did not."""
        if hand.process is None:
            return
        status = hand.process.poll()
        if status is None:
            if hand.told_at and time.monotonic() - hand.told_at > self._chosen.card_stop_seconds:
                log.error("card %s: worker %s did not end in time and is killed", hand.bdf, hand.process.pid)
                hand.process.kill()
            return
        lived = time.monotonic() - hand.started
        hand.pause = SHORTEST_PAUSE_SECONDS if lived > LONG_LIFE_SECONDS else min(hand.pause * 2, LONGEST_PAUSE_SECONDS)
        hand.process, hand.again_at = None, time.monotonic() + hand.pause
        why = ": it cannot start, see its last line" if status == EXIT_CANNOT_START else ""
        again = "" if hand.gone or self._stopping.is_set() else f"; started again in {hand.pause:g} s"
        log.log(
            logging.WARNING if status else logging.INFO,
            "card %s: its worker ended with status %s%s%s", hand.bdf, status, why, again,
        )  # fmt: skip
        if status:
            # a card has one worker, which is dead: what it held need not wait for its leases
            node = f"vck5000-{hand.bdf}@{socket.gethostname()}"
            self._told(lambda: release_worker(self._farm, f"{node}/", refund=hand.gone))

    def _tell_to_end(self, hand: _Hand) -> None:
        if hand.process and not hand.told_at:
            hand.told_at = time.monotonic()
            hand.process.send_signal(signal.SIGTERM)

    def _runtime_order(self, found: list[FoundCard]) -> list[str]:
        """The cards as the runtime numbers them: in XRT's own order where it tells, else by address."""
        present = sorted(card.bdf for card in found)
        if len(present) < 2:
            return present
        try:
            listed = [device.bdf for device in read_host(self._chosen).devices if device.bdf in present]
        except (EngineMissing, EngineBusy) as error:
            self._say_once(f"cards are numbered by address, since XRT does not tell its order: {error}")
            listed = []
        return listed + [bdf for bdf in present if bdf not in listed]

    def _told(self, step: Callable[[], object]) -> bool:
        """Do a step of SQL; False where it has to be done later."""
        try:
            step()
        except FarmError as error:
            self._say_once(f"SQL could not be told for now: {error}")
            return False
        return True

    def _say_once(self, said: str) -> None:
        if said != self._said:
            self._said = said
            log.warning("%s", said)


def _dies_with_parent() -> Callable[[], None]:
    """For a child before exec: the kernel ends it, politely, when its parent ends, kill -9 included."""
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def ask() -> None:
        if prctl is not None:
            prctl(_DIE_WITH_PARENT, signal.SIGTERM)

    return ask


def supervise(chosen: Settings, options: Sequence[str]) -> int:
    """Run a worker per card until SIGTERM or SIGINT; the exit status."""
    from farm.jobs.metrics import serve_metrics

    farm = Farm.open(chosen)
    try:
        supervisor = Supervisor(farm, options)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: supervisor.stop())
        serve_metrics(farm, socket.gethostname())
        return supervisor.run()
    finally:
        farm.close()
