"""The moves of one row of work between ready and leased. The database's clock decides, and the lease's owner guards every later move."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Double, and_, bindparam, or_, select, update

from farm.db.models import CropBatchRow, ScanVideo, TrainingJob, WorkState
from farm.db.session import db_now
from farm.errors import Retryable
from farm.farm import Farm
from farm.jobs.tables import SCANS, table_of

Work = type[ScanVideo] | type[CropBatchRow] | type[TrainingJob]
"""The tables whose rows are work: a video to split, a crop batch to score, a network to train."""

ENDED: dict[str, Any] = {"lease_owner": None, "lease_until": None}
"""What every row that is leased no more has in common."""


class LeaseLost(Retryable):
    """Another worker took the row over, or its scan was cancelled: drop what you have."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A row that this worker holds."""

    work: Work
    row_id: int
    #: unique per claim: a worker that lost the row and claims it again is another owner
    owner: str
    #: 1 at the first attempt
    attempt: int

    @property
    def holds(self) -> dict[str, Any]:
        """Parameters of `held`."""
        return {"row_id": self.row_id, "now_owner": self.owner}


def claim(farm: Farm, work: Work, row_id: int, worker: str, engine: str = "") -> Lease | None:
    """Lease the row to this worker, or None where it is not to be had: done, held, not yet due, out of attempts.

    `engine` is the only one that this worker runs: a crop batch whose scan asks for another is not to be had either.
    """
    owner = f"{worker}#{secrets.token_hex(4)}"
    limits = {"for_seconds": farm.settings.lease_seconds, "most_attempts": farm.settings.max_attempts}
    wanted = {"engine_here": engine} if engine else {}
    with farm.write() as connection:
        row = connection.execute(
            _claim(work, of_engine=bool(engine)), {"row_id": row_id, "new_owner": owner, **limits, **wanted}
        )
        attempt = row.scalar_one_or_none()
    return None if attempt is None else Lease(work, row_id, owner, attempt)


def renew(farm: Farm, lease: Lease) -> bool:
    """Hold the row for another `lease_seconds`; False where it was lost."""
    with farm.write() as connection:
        return extend(farm, connection, lease)


def extend(farm: Farm, connection: Connection, lease: Lease) -> bool:
    """Renew inside the caller's transaction; False where the lease was lost, and then the caller must store nothing."""
    renewed = connection.execute(_renew(lease.work), lease.holds | {"for_seconds": farm.settings.lease_seconds})
    return renewed.scalar_one_or_none() is not None


def release(farm: Farm, lease: Lease) -> bool:
    """Give the row back as if it had not been tried; False where it was lost."""
    table = table_of(lease.work)
    given = update(table).where(*held(lease.work)).values(**_ready(lease.work, refund=True)).returning(table.c.id)
    with farm.write() as connection:
        return connection.execute(given, lease.holds).scalar_one_or_none() is not None


def decline(farm: Farm, work: Work, row_id: int) -> None:
    """Have the bell rung for this row again at once: the worker that heard it takes no work now. Nothing where it is not ready."""
    table = table_of(work)
    unheard = update(table).where(table.c.id == bindparam("row_id"), table.c.state == WorkState.READY)
    with farm.write() as connection:
        connection.execute(unheard.values(rung_at=0.0), {"row_id": row_id})


def release_worker(farm: Farm, worker: str, *, refund: bool) -> int:
    """Make every row ready again whose lease's owner begins with `worker` ("": every leased row); the number of rows.

    Only for workers known to be dead. `refund` takes the attempt back: right after an orderly stop, wrong after a crash, where the
    row itself may be the poison.
    """
    freed = 0
    for work in (ScanVideo, CropBatchRow, TrainingJob):
        table = table_of(work)
        theirs = and_(table.c.state == WorkState.LEASED, table.c.lease_owner.startswith(worker, autoescape=True))
        given = update(table).where(theirs).values(**_ready(work, refund=refund)).returning(table.c.id)
        with farm.write() as connection:
            freed += len(connection.execute(given).all())
    return freed


def lease_of(farm: Farm, work: Work, row_id: int, worker: str) -> Lease | None:
    """The lease whose owner begins with `worker`, for whoever cleans up after a process that died; None where it has ended."""
    table = table_of(work)
    with farm.read() as connection:
        columns = (table.c.state, table.c.lease_owner, table.c.attempts)
        row = connection.execute(select(*columns).where(table.c.id == row_id)).one_or_none()
    if row is None or row.state != WorkState.LEASED or not str(row.lease_owner).startswith(worker):
        return None
    return Lease(work, row_id, row.lease_owner, row.attempts)


@cache
def held(work: Work) -> tuple[ColumnElement[bool], ...]:
    """The condition that a lease still stands, with the parameters `Lease.holds`: every move of a leased row is guarded by it."""
    table = table_of(work)
    mine = table.c.lease_owner == bindparam("now_owner")
    return table.c.id == bindparam("row_id"), table.c.state == WorkState.LEASED, mine


@cache
def _claim(work: Work, *, of_engine: bool) -> Any:
    table, now = table_of(work), db_now()
    due = or_(
        and_(table.c.state == WorkState.READY, table.c.ready_at <= now),
        and_(table.c.state == WorkState.LEASED, table.c.lease_until < now),
    )
    if of_engine:
        due = and_(due, table.c.scan_id.in_(select(SCANS.c.id).where(SCANS.c.engine == bindparam("engine_here"))))
    return (
        update(table)
        .where(table.c.id == bindparam("row_id"), due, table.c.attempts < bindparam("most_attempts"))
        .values(state=WorkState.LEASED, lease_owner=bindparam("new_owner"), attempts=table.c.attempts + 1)
        .values(lease_until=_lease_end())
        .returning(table.c.attempts)
    )


@cache
def _renew(work: Work) -> Any:
    table = table_of(work)
    return update(table).where(*held(work)).values(lease_until=_lease_end()).returning(table.c.id)


def _lease_end() -> ColumnElement[float]:
    return db_now() + bindparam("for_seconds", type_=Double)


def _ready(work: Work, *, refund: bool) -> dict[str, Any]:
    return {"state": WorkState.READY, "rung_at": 0.0, "attempts": table_of(work).c.attempts - int(refund), **ENDED}
