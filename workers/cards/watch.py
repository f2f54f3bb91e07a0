"""Keeps a card and its row in SQL of one mind while its worker runs: beats, obeys, samples its sensors, ends where the card is gone.

SQL decides what the card may do; `Post` carries it to the threads that score, a `Tap` to the worker's consumer. Knows no Celery and no
runtime: opening and closing the engine, and ending the worker, are given to it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from farm.db.models import CardState
from farm.errors import CardQuarantined, EngineBusy, EngineMissing, FarmError, Fatal, Retryable
from farm.farm import Farm
from farm.jobs import cards
from workers.cards.find import find_card, find_cards, is_address
from workers.cards.post import Post
from workers.cards.sensors import read_platform, read_sensors

log = logging.getLogger(__name__)

SHELL_IS_READ_EVERY = 60
"""Samples after which serial number and shell are read again: they change with a flash alone."""


class Tap(Protocol):
    """How a worker draws messages of its card's queue."""

    def turn(self, on: bool) -> None:
        """Draw messages, or leave them to others."""
        ...


class CardEngine(Protocol):
    """The engine of the card, as the watch handles it."""

    def open(self) -> None:
        """Open it and ask it the golden pictures. Raises FarmError."""
        ...

    def close(self) -> None:
        """Give the card back."""
        ...

    def losses(self) -> int:
        """Times its process was lost since it was opened."""
        ...

    def right_at(self) -> float | None:
        """When the golden pictures were last answered rightly, in seconds of time(); None: never, or it has none."""
        ...


@dataclass(frozen=True, slots=True)
class Station:
    """Which card a worker drives, from where."""

    host: str
    bdf: str
    #: the worker's Celery node
    node: str
    #: name of the engine that it runs
    engine: str


class CardWatch:
    """One card's watch: `start` before the worker draws its first message, `stop` when it has ended."""

    def __init__(
        self,
        farm: Farm,
        station: Station,
        post: Post,
        tap: Tap,
        engine: CardEngine,
        end: Callable[[str], None],
        *,
        patient: bool,
    ) -> None:
        """`end` ends the worker with a reason. `patient`: outlive a quarantine, to be resumed; else it ends the worker."""
        self._farm, self._station, self._post, self._tap, self._engine, self._end = (
            farm,
            station,
            post,
            tap,
            engine,
            end,
        )
        self._patient = patient
        self._card_id = 0
        self._opened = False
        self._opening: threading.Thread | None = None
        self._losses_told = 0
        self._samples = 0
        self._on_bus = False
        self._complaints: set[str] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch-{station.bdf}", daemon=True)
        # apart: the vendor's program hangs where a card does, and the worker must go on beating and obeying
        self._looker = threading.Thread(target=self._look_on, name=f"look-{station.bdf}", daemon=True)

    def start(self) -> None:
        """Put the card on record and open it if it may work. Raises Fatal where it cannot be opened, Retryable where not yet."""
        here = self._station
        self._card_id = cards.enlist(self._farm, here.host, here.bdf, worker=here.node, engine=here.engine)
        state = self._beat()
        if state is CardState.READY:
            self._open_first()
            state = self._beat()
        else:
            self._wait_to_be_resumed(state)
        self._obey(state)
        self._thread.start()
        if is_address(here.bdf):
            self._looker.start()

    def stop(self) -> None:
        """End the watch and say that the worker is gone."""
        self._stopped.set()
        self._post.woken.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            self._beat()
            cards.leave(self._farm, self._card_id, self._station.node)
        except Retryable as error:
            log.warning("the end of card %s's worker is not on record: %s", self._station.bdf, error)

    def _wait_to_be_resumed(self, state: CardState) -> None:
        """Say that the card may not work now. Raises EngineMissing where nobody would wait for that."""
        why = f"card {self._station.bdf} is {state}: see `farm cards list`, and `farm cards resume` it"
        if not self._patient and state is not CardState.HOT:
            raise EngineMissing(why)
        log.warning("%s", why)

    def _open_first(self) -> None:
        try:
            self._engine.open()
            self._opened = True
        except CardQuarantined as error:
            self._post.distrust(str(error))
            self._record_fault()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._post.woken.wait(self._farm.settings.card_beat_seconds)
            self._post.woken.clear()
            if self._stopped.is_set():
                return
            try:
                self._record_fault()
                self._obey(self._beat())
            except FarmError as error:
                self._complain("watching it", error)
            except Exception:  # a thread that died of it would leave a card unwatched
                log.exception("the watch of card %s failed for once", self._station.bdf)

    def _look_on(self) -> None:
        """Look at the card again and again; a look that hangs for its longest is not waited for by `stop`."""
        while not self._stopped.is_set():
            try:
                self._look()
            except FarmError as error:
                self._complain("looking at it", error)
            except Exception:  # a thread that died of it would leave a card unwatched
                log.exception("a look at card %s failed for once", self._station.bdf)
            self._stopped.wait(self._farm.settings.card_sample_seconds)

    def _record_fault(self) -> None:
        """Have SQL know a fault before SQL is asked what to do."""
        fault = self._post.fault
        if not fault:
            return
        self._opened = False
        cards.quarantine(self._farm, self._card_id, fault)
        self._post.fault_recorded()
        log.error("%s", fault)
        if not self._patient:
            self._end(fault)

    def _beat(self) -> CardState:
        crops, losses, right_at = self._post.take_count(), self._engine.losses(), self._engine.right_at()
        age = None if right_at is None else max(0.0, time.time() - right_at)
        said = cards.Beat(self._station.node, crops, max(0, losses - self._losses_told), age)
        try:
            state = cards.beat(self._farm, self._card_id, said)
        except FarmError:
            self._post.give_back_count(crops)
            raise
        self._losses_told = losses
        return state

    def _obey(self, state: CardState) -> None:
        """Take work or not as SQL says; a card that somebody drained or that is quarantined is given back once it is idle."""
        may_work = state is CardState.READY
        if may_work and not self._opened:
            self._open_again()
        ready = may_work and self._opened
        if ready is not self._post.takes_work:
            log.warning(
                "card %s is %s: it %s", self._station.bdf, state, "takes work" if ready else "takes no new work"
            )
        self._post.set_open(ready)
        self._tap.turn(self._post.takes_work)
        if state in (CardState.DRAINED, CardState.QUARANTINED) and self._idle():
            self._engine.close()
            self._opened = False

    def _idle(self) -> bool:
        return self._post.busy == 0 and (self._opening is None or not self._opening.is_alive())

    def _open_again(self) -> None:
        """Open the engine anew in a thread of its own, since it takes long and the worker must go on beating."""
        if self._opening is not None and self._opening.is_alive():
            return

        def open_it() -> None:
            try:
                self._engine.close()
                self._losses_told = 0
                self._engine.open()
                self._opened = True
            except (CardQuarantined, Fatal) as error:
                self._post.distrust(str(error))
            except FarmError as error:
                self._complain("opening it", error)
            self._post.woken.set()

        self._opening = threading.Thread(target=open_it, name=f"open-{self._station.bdf}", daemon=True)
        self._opening.start()

    def _look(self) -> None:
        """Look at the bus and at the card's sensors once."""
        if self._left_the_bus():
            return
        try:
            if self._samples % SHELL_IS_READ_EVERY == 0:
                platform = read_platform(self._farm.settings, self._station.bdf)
                cards.describe(self._farm, self._card_id, platform.serial or None, platform.shell or None)
            self._samples += 1
            reading = read_sensors(self._farm.settings, self._station.bdf)
        except (EngineMissing, EngineBusy) as error:
            self._complain("reading its sensors; it is not drained when it gets hot", error)
            return
        cards.sample(self._farm, self._card_id, reading.celsius, reading.watts)
        self._post.woken.set()

    def _left_the_bus(self) -> bool:
        """Whether the card was on the bus and no longer is; then it is marked gone and its worker ended."""
        try:
            listed = find_card(find_cards(self._farm.settings), self._station.bdf) is not None
        except (EngineMissing, EngineBusy) as error:
            self._complain("looking for it on the bus", error)
            return False
        if listed or not self._on_bus:
            self._on_bus = listed
            return False
        why = gone(self._station.bdf)
        cards.mark_gone(self._farm, self._station.host, self._station.bdf, why)
        self._post.set_open(False)
        self._tap.turn(False)
        log.error("%s", why)
        self._end(why)
        return True

    def _complain(self, doing: str, error: FarmError) -> None:
        """Say it once: a sensor that is missing is missing every time."""
        said = f"card {self._station.bdf}, {doing}: {error}"
        if said not in self._complaints:
            self._complaints.add(said)
            log.warning("%s", said)


def gone(bdf: str) -> str:
    """What to say of a card that left the bus, and what to do."""
    return (
        f"card {bdf} vanished from the PCI bus; its worker is drained and ended. Look at dmesg and at its power cable, "
        "reseat it or restart the host; it gets a worker again once `lspci -d 10ee:` lists it"
    )
