"""What becomes of a failed attempt: another one after a pause, or, when it cannot help or was the last, a failure that shows."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import select, update

from farm.db.models import CropBatchRow, ScanVideo, TrainingJob, WorkState
from farm.db.session import db_now
from farm.errors import BadVideo, CardQuarantined, EngineMissing, FarmError, Fatal
from farm.farm import Farm
from farm.jobs.claim import ENDED, Lease, LeaseLost, held, release
from farm.jobs.record import fail_batch, fail_split
from farm.jobs.tables import table_of
from farm.jobs.training.record import attempts_since_checkpoint, fail_training

ERROR_CHARACTERS = 2000
"""An error's text is cut to this; a row is no log."""


def fail(farm: Farm, lease: Lease, error: BaseException) -> WorkState:
    """End a failed attempt. The row is READY again after a pause that doubles per attempt, or FAILED.

    CardQuarantined says nothing about the row, but all about the card: the row is given back as if it had not been tried.

    A `Fatal` error fails at once, as trying again cannot help; BadVideo ends a split as DONE, since UNREADABLE is its result. The one
    exception is EngineMissing: another machine may have the engine. Raises LeaseLost where the row was taken over meanwhile.
    """
    said = describe(error)
    if isinstance(error, CardQuarantined):
        if not release(farm, lease):
            raise LeaseLost(f"row {lease.row_id} was taken over")
        return WorkState.READY
    if lease.work is ScanVideo and isinstance(error, BadVideo):
        fail_split(farm, lease, said, state=WorkState.DONE)
        return WorkState.DONE
    hopeless = isinstance(error, Fatal) and not isinstance(error, EngineMissing)
    if lease.work is TrainingJob:
        lease = replace(lease, attempt=attempts_since_checkpoint(farm, lease))
    if hopeless or lease.attempt >= farm.settings.max_attempts:
        return bury(farm, lease, said)
    _again(farm, lease, said)
    return WorkState.READY


def bury(farm: Farm, lease: Lease, said: str) -> WorkState:
    """Fail the leased row for good."""
    attempts = "" if lease.attempt <= 1 else f" (given up after {lease.attempt} attempts)"
    end = {ScanVideo: fail_split, CropBatchRow: fail_batch, TrainingJob: fail_training}[lease.work]
    end(farm, lease, f"{said}{attempts}")
    return WorkState.FAILED


def bury_abandoned(farm: Farm) -> int:
    """Fail every row whose last allowed attempt ended with a dead worker; the number of rows. Called by the dispatcher."""
    buried = 0
    for work, said in (
        (ScanVideo, "the worker that read this video died"),
        (CropBatchRow, "the worker that scored this batch died"),
        (TrainingJob, "the worker that trained this network died"),
    ):
        table = table_of(work)
        abandoned = select(table.c.id, table.c.lease_owner, table.c.attempts, table.c.error).where(
            table.c.state == WorkState.LEASED,
            table.c.lease_until < db_now(),
            table.c.attempts >= farm.settings.max_attempts,
        )
        with farm.read() as connection:
            rows = connection.execute(abandoned.limit(100)).all()
        for row in rows:
            try:
                bury(farm, Lease(work, row.id, row.lease_owner, row.attempts), row.error or said)
                buried += 1
            except LeaseLost:
                continue
    return buried


def describe(error: BaseException) -> str:
    """The error as one text for a row; a FarmError explains itself, anything else names its kind."""
    said = str(error) if isinstance(error, FarmError) else f"{type(error).__name__}: {error}"
    return said.replace("\x00", "\\0").encode("utf-8", "backslashreplace").decode()[:ERROR_CHARACTERS]


def _again(farm: Farm, lease: Lease, said: str) -> None:
    table = table_of(lease.work)
    due = db_now() + farm.settings.retry_seconds * 2 ** (lease.attempt - 1)
    again = {"state": WorkState.READY, "rung_at": 0.0, "ready_at": due, "error": said, **ENDED}
    with farm.write() as connection:
        given = update(table).where(*held(lease.work)).values(**again).returning(table.c.id)
        if connection.execute(given, lease.holds).scalar_one_or_none() is None:
            raise LeaseLost(f"row {lease.row_id} was taken over")
