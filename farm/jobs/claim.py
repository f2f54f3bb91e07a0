"""The moves of one row of work between ready and leased. The database's clock decides, and the lease's owner guards every later move."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.orm import Session

from farm.db.models import CropBatchRow, ScanVideo, WorkState
from farm.db.session import database_errors, db_now
from farm.errors import Retryable
from farm.farm import Farm

Work = type[ScanVideo] | type[CropBatchRow]
"""The two tables whose rows are work: a video to split, a crop batch to score."""


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


def claim(farm: Farm, work: Work, row_id: int, worker: str) -> Lease | None:
    """Lease the row to this worker, or None where it is not to be had: done, held, not yet due, out of attempts."""
    owner = f"{worker}#{secrets.token_hex(4)}"
    now = db_now()
    due = or_(
        and_(work.state == WorkState.READY, work.ready_at <= now),
        and_(work.state == WorkState.LEASED, work.lease_until < now),
    )
    taken = (
        update(work)
        .where(work.id == row_id, due, work.attempts < farm.settings.max_attempts)
        .values(
            state=WorkState.LEASED,
            lease_owner=owner,
            lease_until=now + farm.settings.lease_seconds,
            attempts=work.attempts + 1,
        )
        .returning(work.attempts)
        .execution_options(synchronize_session=False)
    )
    with database_errors(), farm.sessions.begin() as session:
        attempt = session.execute(taken).scalar_one_or_none()
    return None if attempt is None else Lease(work, row_id, owner, attempt)


def renew(farm: Farm, lease: Lease) -> bool:
    """Hold the row for another `lease_seconds`; False where it was lost."""
    with database_errors(), farm.sessions.begin() as session:
        return extend(farm, session, lease)


def extend(farm: Farm, session: Session, lease: Lease) -> bool:
    """Renew inside the caller's transaction; False where the lease was lost, and then the caller must store nothing."""
    held = (
        update(lease.work)
        .where(*held_by(lease))
        .values(lease_until=db_now() + farm.settings.lease_seconds)
        .returning(lease.work.id)
        .execution_options(synchronize_session=False)
    )
    return session.execute(held).scalar_one_or_none() is not None


def release(farm: Farm, lease: Lease) -> bool:
    """Give the row back as if it had not been tried; False where it was lost."""
    given = (
        update(lease.work)
        .where(*held_by(lease))
        .values(
            state=WorkState.READY, lease_owner=None, lease_until=None, rung_at=0.0, attempts=lease.work.attempts - 1
        )
        .returning(lease.work.id)
        .execution_options(synchronize_session=False)
    )
    with database_errors(), farm.sessions.begin() as session:
        return session.execute(given).scalar_one_or_none() is not None


def release_worker(farm: Farm, worker: str, *, refund: bool) -> int:
    """Make every row that this worker (or, with "", any worker) holds ready again; the number of rows.

    Only for a worker known to be dead. `refund` takes the attempt back: right after an orderly stop, wrong after a crash, where
    the row itself may be the poison.
    """
    freed = 0
    for work in (ScanVideo, CropBatchRow):
        given = (
            update(work)
            .where(work.state == WorkState.LEASED, work.lease_owner.startswith(worker, autoescape=True))
            .values(
                state=WorkState.READY,
                lease_owner=None,
                lease_until=None,
                rung_at=0.0,
                attempts=work.attempts - int(refund),
            )
            .returning(work.id)
            .execution_options(synchronize_session=False)
        )
        with database_errors(), farm.sessions.begin() as session:
            freed += len(session.execute(given).all())
    return freed


def held_by(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    """The condition that the lease still stands: every move of a leased row is guarded by it."""
    return lease.work.id == lease.row_id, lease.work.state == WorkState.LEASED, lease.work.lease_owner == lease.owner


def lease_of(farm: Farm, work: Work, row_id: int, worker: str) -> Lease | None:
    """The lease whose owner begins with `worker`, for whoever cleans up after a process that died; None where it has ended."""
    with database_errors(), farm.sessions() as session:
        row = session.execute(
            select(work.state, work.lease_owner, work.attempts).where(work.id == row_id)
        ).one_or_none()
    if row is None or row.state != WorkState.LEASED or not str(row.lease_owner).startswith(worker):
        return None
    return Lease(work, row_id, row.lease_owner, row.attempts)
