"""Holding a lease while a long task works: a thread renews it, and the task learns when it was lost."""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import Self

from farm.errors import DatabaseAway
from farm.farm import Farm
from farm.jobs.claim import Lease, LeaseLost, renew

log = logging.getLogger(__name__)


class Hold:
    """Keeps a lease alive inside a `with` block, renewing it three times per lease."""

    def __init__(self, farm: Farm, lease: Lease) -> None:
        self._farm = farm
        self._lease = lease
        self._ended = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._renew, name=f"lease-{lease.row_id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def check(self) -> None:
        """Raise LeaseLost if the row was taken over: whatever is still computed could not be recorded."""
        if self._lost:
            raise LeaseLost(f"row {self._lease.row_id} was taken over while it was worked on")

    def _renew(self) -> None:
        while not self._ended.wait(self._farm.settings.lease_seconds / 3):
            try:
                self._lost = not renew(self._farm, self._lease)
            except DatabaseAway as error:
                log.warning("lease of row %s could not be renewed for now: %s", self._lease.row_id, error)
            if self._lost:
                return
