"""What a worker process keeps open between tasks: the farm, detectors, engines. Opened once, closed at the process's end."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

from farm.contracts import ModelCard
from farm.farm import Farm
from farm.jobs.models import load_model
from farm.media.faces import Detector, open_detector
from farm.settings import settings
from farm.split import Recipe
from workers.cards.post import Post
from workers.engines import open_engine
from workers.engines.base import Engine

ONE_MODEL_AT_A_TIME = ("vart",)
"""Engines whose device holds one network; another model's takes its place, which costs seconds."""


@dataclass(frozen=True, slots=True)
class OpenedEngine:
    """An engine with the card it was opened for."""

    engine: Engine
    card: ModelCard
    #: held while computing: threads beyond what the processors can carry would only take each other's cache
    turn: threading.BoundedSemaphore
    at_once: int
    #: set when it was closed to make room for another model on its card
    left: threading.Event = field(default_factory=threading.Event)


class Engines:
    """The engines of this process, one per engine name and model, each opened at its first use. Safe in threads."""

    def __init__(self, farm: Farm, device: str | None = None) -> None:
        self._farm = farm
        self._device = device
        self._lock = threading.Lock()
        self._opened: dict[tuple[str, int], OpenedEngine] = {}

    @contextmanager
    def using(self, name: str, model_id: int) -> Iterator[OpenedEngine]:
        """The engine for this model, in its turn and open within the block. Raises as `open` does."""
        while True:
            opened = self.open(name, model_id)
            with opened.turn:
                if not opened.left.is_set():
                    yield opened
                    return

    def open(self, name: str, model_id: int) -> OpenedEngine:
        """The engine for this model; a card runs one at a time. Raises EngineMissing, EngineBusy, BadInput, BadModel, StorageAway."""
        with self._lock:
            found = self._opened.get((name, model_id))
            if found is None:
                for other in [key for key in self._opened if key[0] == name and name in ONE_MODEL_AT_A_TIME]:
                    self._leave(self._opened.pop(other))
                found = self._opened[(name, model_id)] = self._open(name, model_id)
            return found

    def _leave(self, opened: OpenedEngine) -> None:
        """Close it once what it computes now is done; whoever waits for a turn turns to another."""
        with ExitStack() as turns:
            for _ in range(opened.at_once):
                turns.enter_context(opened.turn)
            opened.left.set()
            opened.engine.close()

    def _open(self, name: str, model_id: int) -> OpenedEngine:
        model, chosen = load_model(self._farm, model_id), self._farm.settings
        with self._farm.store.get_file(model.object_key) as weights:
            engine = open_engine(
                name,
                weights,
                model.card,
                threads=chosen.engine_threads,
                device=self._device,
                rate=chosen.simulated_crops_per_second,
            )
        at_once = max(1, len(os.sched_getaffinity(0)) // chosen.engine_threads)
        return OpenedEngine(engine, model.card, threading.BoundedSemaphore(at_once), at_once)

    @property
    def opened(self) -> list[Engine]:
        """Those that are open now."""
        with self._lock:
            return [opened.engine for opened in self._opened.values()]

    def close(self) -> None:
        """Give every device back; what is asked for later is opened anew."""
        with self._lock:
            for opened in self._opened.values():
                opened.engine.close()
            self._opened.clear()


class Detectors:
    """The face detectors of this process, one per kind that a recipe asked for."""

    def __init__(self) -> None:
        self._opened: dict[tuple[str, int, float], Detector] = {}

    def open(self, recipe: Recipe) -> Detector:
        """The detector that this recipe asks for."""
        wanted = (recipe.detector, recipe.detector_side_px, recipe.detector_confidence)
        if wanted not in self._opened:
            self._opened[wanted] = open_detector(*wanted, threads=1)
        return self._opened[wanted]


class Watch(Protocol):
    """Something that goes on beside the tasks."""

    def stop(self) -> None:
        """End it."""
        ...


@dataclass(frozen=True, slots=True)
class Process:
    """Everything that this process keeps open."""

    farm: Farm
    engines: Engines
    detectors: Detectors
    #: whether this process may take work, which its card's watch decides
    post: Post = field(default_factory=Post)
    #: of the card that this process drives, if it drives one
    watches: list[Watch] = field(default_factory=list)

    def close(self) -> None:
        """Give devices and connections back."""
        for watch in self.watches:
            watch.stop()
        self.engines.close()
        self.farm.close()


@cache
def process() -> Process:
    """This process's resources, opened at the first call: after a fork, never before it."""
    farm = Farm.open(settings())
    return Process(farm, Engines(farm, farm.settings.card or None), Detectors())


def close_process() -> None:
    """Close what `process` opened, if it did."""
    if process.cache_info().currsize:
        process().close()
        process.cache_clear()
