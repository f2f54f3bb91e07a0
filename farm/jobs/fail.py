"""What becomes of a failed attempt: another one after a pause, or, when it cannot help or was the last, a failure that shows."""

from __future__ import annotations

from sqlalchemy import select, update

from farm.db.models import CropBatchRow, ScanVideo, WorkState
from farm.db.session import database_errors, db_now
from farm.errors import BadVideo, EngineMissing, Fatal
from farm.farm import Farm
from farm.jobs.claim import Lease, LeaseLost, held_by
from farm.jobs.record import fail_batch, fail_split

ERROR_CHARACTERS = 2000
"""An error's text is cut to this; a row is no log."""


def fail(farm: Farm, lease: Lease, error: BaseException) -> WorkState:
    """End a failed attempt. The row is READY again after a pause that doubles per attempt, or FAILED.

    A `Fatal` error fails at once, as trying again cannot help; BadVideo ends a split as DONE, since UNREADABLE is its result. The one
    exception is EngineMissing: another machine may have the engine. Raises LeaseLost where the row was taken over meanwhile.
    """
    said = describe(error)
    if lease.work is ScanVideo and isinstance(error, BadVideo):
        fail_split(farm, lease, said, state=WorkState.DONE)
        return WorkState.DONE
    hopeless = isinstance(error, Fatal) and not isinstance(error, EngineMissing)
    if hopeless or lease.attempt >= farm.settings.max_attempts:
        return bury(farm, lease, said)
    _again(farm, lease, said)
    return WorkState.READY


def bury(farm: Farm, lease: Lease, said: str) -> WorkState:
    """Fail the leased row for good."""
    attempts = "" if lease.attempt <= 1 else f" (given up after {lease.attempt} attempts)"
    (fail_split if lease.work is ScanVideo else fail_batch)(farm, lease, f"{said}{attempts}")
    return WorkState.FAILED


def bury_abandoned(farm: Farm) -> int:
    """Fail every row whose last allowed attempt ended with a dead worker; the number of rows. Called by the dispatcher."""
    buried = 0
    for work, said in (
        (ScanVideo, "the worker that read this video died"),
        (CropBatchRow, "the worker that scored this batch died"),
    ):
        abandoned = select(work.id, work.lease_owner, work.attempts, work.error).where(
            work.state == WorkState.LEASED, work.lease_until < db_now(), work.attempts >= farm.settings.max_attempts
        )
        with database_errors(), farm.sessions() as session:
            rows = session.execute(abandoned.limit(100)).all()
        for row in rows:
            try:
                bury(farm, Lease(work, row.id, row.lease_owner, row.attempts), row.error or said)
                buried += 1
            except LeaseLost:
                continue
    return buried


def describe(error: BaseException) -> str:
    """The error as one text for a row; a FarmError explains itself, anything else names its kind."""
    said = (
        str(error)
        if isinstance(error, Fatal) or str(type(error).__module__).startswith("farm.")
        else f"{type(error).__name__}: {error}"
    )
    return said.replace("\x00", "\\0").encode("utf-8", "backslashreplace").decode()[:ERROR_CHARACTERS]


def _again(farm: Farm, lease: Lease, said: str) -> None:
    pause = farm.settings.retry_seconds * 2 ** (lease.attempt - 1)
    given = (
        update(lease.work)
        .where(*held_by(lease))
        .values(
            state=WorkState.READY,
            lease_owner=None,
            lease_until=None,
            rung_at=0.0,
            ready_at=db_now() + pause,
            error=said,
        )
        .returning(lease.work.id)
        .execution_options(synchronize_session=False)
    )
    with database_errors(), farm.sessions.begin() as session:
        if session.execute(given).scalar_one_or_none() is None:
            raise LeaseLost(f"row {lease.row_id} was taken over")
