"""Ties a Celery worker to its card's watch: its consumer draws messages or not, its engines are opened and closed, it ends."""

from __future__ import annotations

import socket
import sys
from typing import Any

from celery.worker import state

from farm.embedded import CANNOT_START, EXIT_CANNOT_START
from farm.jobs.models import find_model
from farm.queue import infer_queue
from workers.cards.find import card_of
from workers.cards.watch import CardWatch, Station
from workers.engines.base import Watched
from workers.resources import Process


class QueueTap:
    """Draws messages of one queue with this worker, or leaves them to others; also across a lost connection to Redis."""

    def __init__(self, worker: Any, queue: str) -> None:
        self._worker, self._queue, self._on = worker, queue, True

    def turn(self, on: bool) -> None:
        if on is self._on:
            return
        self._on = on
        consumer = self._worker.consumer
        if consumer is None:
            self._select(on)
        else:
            consumer.call_soon(self._change, consumer, on)

    def _change(self, consumer: Any, on: bool) -> None:
        """In the consumer's own thread."""
        if consumer.task_consumer is None:
            self._select(on)
        elif on:
            consumer.add_task_queue(self._queue)
        else:
            consumer.cancel_task_queue(self._queue)

    def _select(self, on: bool) -> None:
        """For the next connection to Redis, while there is none."""
        queues = self._worker.app.amqp.queues
        if on:
            queues.select_add(queues[self._queue])
        else:
            queues.deselect(self._queue)


class ProcessEngine:
    """The engines of this process, as a card's watch handles them."""

    def __init__(self, here: Process) -> None:
        self._here = here

    def open(self) -> None:
        chosen = self._here.farm.settings
        self._here.engines.open(chosen.engine, find_model(self._here.farm, chosen.model))

    def close(self) -> None:
        self._here.engines.close()

    def losses(self) -> int:
        return sum(engine.losses for engine in self._here.engines.opened if isinstance(engine, Watched))

    def right_at(self) -> float | None:
        times = [engine.right_at for engine in self._here.engines.opened if isinstance(engine, Watched)]
        return max(times, default=None)


def attach(worker: Any, here: Process, *, patient: bool) -> CardWatch:
    """Open the card of this worker and watch it. Raises Fatal where it cannot be opened, Retryable where it cannot yet."""
    chosen = here.farm.settings
    station = Station(
        socket.gethostname(), card_of(chosen.card, chosen.engine, chosen.vart_device), worker.hostname, chosen.engine
    )
    tap = QueueTap(worker, infer_queue(chosen.engine))
    watch = CardWatch(here.farm, station, here.post, tap, ProcessEngine(here), end_worker, patient=patient)
    watch.start()
    return watch


def end_worker(why: str) -> None:
    """End this worker once it has finished what it holds; it cannot do its work here any more."""
    sys.stderr.write(f"{CANNOT_START}{why}\n")
    sys.stderr.flush()
    state.should_stop = EXIT_CANNOT_START  # type: ignore[assignment]  # the stubs know only its first value
