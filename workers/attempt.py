"""One attempt at one row of work: claim it, hold its lease while a body works, and see to whatever goes wrong.

Knows neither videos nor engines nor Celery. An outage of SQL is waited out, as nothing can be recorded without it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from farm.errors import BadVideo, DatabaseAway, FarmError
from farm.farm import Farm
from farm.jobs.claim import Lease, LeaseLost, Work, claim, decline
from farm.jobs.fail import fail
from farm.jobs.hold import Hold

log = logging.getLogger(__name__)
Result = TypeVar("Result")

DROPPED = "dropped: done, held by another, not due, or for another engine"
DECLINED = "declined: this card takes no work now"
LOST = "lost: taken over or cancelled meanwhile"
LONGEST_PAUSE_SECONDS = 5.0


def attempt(
    farm: Farm, work: Work, row_id: int, worker: str, body: Callable[[Lease, Hold], str], engine: str = ""
) -> str:
    """Work on the row if it is to be had; one line that says what came of it. Raises only what ends the process.

    `engine` is the only one that this worker runs, where that matters.
    """
    lease = patiently(farm, lambda: claim(farm, work, row_id, worker, engine))
    if lease is None:
        return DROPPED
    try:
        try:
            with Hold(farm, lease) as hold:
                return body(lease, hold)
        except LeaseLost:
            return LOST
        except Exception as error:  # noqa: BLE001  whatever went wrong belongs to the row
            _log(row_id, error)
            failure = error
        state = patiently(farm, lambda: fail(farm, lease, failure))
        return f"{state}: {failure}"
    except LeaseLost:
        return LOST


def turn_away(farm: Farm, work: Work, row_id: int) -> str:
    """Leave the row to another worker, which is rung for at once."""
    patiently(farm, lambda: decline(farm, work, row_id))
    return DECLINED


def patiently(farm: Farm, step: Callable[[], Result]) -> Result:
    """Do a step of SQL, again and again while the database is away, for as long as a lease lasts; then raise DatabaseAway.

    Every step is guarded by the lease, so one whose commit got through unnoticed is not done twice.
    """
    deadline = time.monotonic() + farm.settings.lease_seconds
    pause = 0.2
    while True:
        try:
            return step()
        except DatabaseAway as error:
            if time.monotonic() + pause > deadline:
                raise
            log.warning("waiting for SQL: %s", error)
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def _log(row_id: int, error: Exception) -> None:
    """An unreadable video is a result, an outage a warning, anything else a defect with its traceback."""
    if isinstance(error, BadVideo):
        log.info("row %s: %s", row_id, error)
    elif isinstance(error, FarmError):
        log.warning("row %s: %s", row_id, error)
    else:
        log.error("row %s: %s", row_id, error, exc_info=error)
