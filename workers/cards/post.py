"""What a worker process knows of its card at this moment. Threads that score ask it before they take work; watch.py keeps it true."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Post:
    """Whether work may be taken, how much is under way, what was done, and what was found wrong. Safe in threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = True
        self._fault = ""
        self._busy = 0
        self._crops = 0
        #: set when there is something that must not wait for the next beat
        self.woken = threading.Event()

    @property
    def takes_work(self) -> bool:
        """Whether a row may be claimed now."""
        return self._open

    def set_open(self, taking: bool) -> None:
        """Take work, or finish what is held and take no more; a card with a fault stays shut."""
        with self._lock:
            self._open = taking and not self._fault

    def distrust(self, why: str) -> None:
        """Take no more work from this instant on: the card is not to be trusted."""
        with self._lock:
            self._open = False
            self._fault = self._fault or why
        self.woken.set()

    @property
    def fault(self) -> str:
        """Why the card is not to be trusted, until that is on record; else empty."""
        return self._fault

    def fault_recorded(self) -> None:
        """SQL knows the fault: from now on it decides."""
        with self._lock:
            self._fault = ""

    @property
    def busy(self) -> int:
        """Rows that are being scored."""
        return self._busy

    @contextmanager
    def working(self) -> Iterator[bool]:
        """Within this block one row is being scored; False where no work is taken, and then nothing may be claimed."""
        with self._lock:
            admitted = self._open
            self._busy += admitted
        try:
            yield admitted
        finally:
            with self._lock:
                self._busy -= admitted

    def scored(self, crops: int) -> None:
        """Count crops whose scores are stored."""
        with self._lock:
            self._crops += crops

    def take_count(self) -> int:
        """Crops scored since the last call."""
        with self._lock:
            crops, self._crops = self._crops, 0
        return crops

    def give_back_count(self, crops: int) -> None:
        """Count these crops again: they could not be told."""
        with self._lock:
            self._crops += crops
