"""What a training worker stores: epochs, checkpoints, the finished network, the failure. Every move is guarded by the lease."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select, update

from farm.db.models import TrainingEpoch, WorkState
from farm.db.session import db_now
from farm.farm import Farm
from farm.jobs.claim import ENDED, Lease, LeaseLost, extend, held
from farm.jobs.tables import TRAINING_JOBS
from farm.jobs.upsert import insert_for


@dataclass(frozen=True, slots=True)
class TrainingWork:
    """A network to train."""

    job_id: int
    name: str
    config: str
    #: digest per data set name
    datasets: dict[str, str]
    epoch: int
    checkpoint_key: str | None
    best_key: str | None


@dataclass(frozen=True, slots=True)
class Epoch:
    """What the trainer said of one epoch."""

    #: 1-based, of so many
    epoch: int
    epochs_total: int
    #: pictures trained on since the start of the job
    images: int
    #: plain figures by name
    metrics: dict[str, Any]


def training_work(farm: Farm, lease: Lease, device: str) -> TrainingWork:
    """What there is to train under this lease; notes where. Raises LeaseLost."""
    with farm.write() as connection:
        _move(farm, connection, lease, device=device)
        columns = ("id", "name", "config", "datasets", "epoch", "checkpoint_key", "best_key")
        row = select(*(TRAINING_JOBS.c[name] for name in columns)).where(TRAINING_JOBS.c.id == lease.row_id)
        return TrainingWork(*connection.execute(row).one())


def record_epoch(farm: Farm, lease: Lease, told: Epoch) -> None:
    """Store an epoch's figures, in place of those of an earlier try. Raises LeaseLost."""
    with farm.write() as connection:
        _move(
            farm,
            connection,
            lease,
            epoch=told.epoch,
            epochs_total=told.epochs_total,
            images=told.images,
            metrics=told.metrics,
        )
        row = {"training_job_id": lease.row_id, "epoch": told.epoch, "metrics": told.metrics, "recorded_at": db_now()}
        again = {"metrics": told.metrics, "recorded_at": db_now()}
        insert = insert_for(connection.dialect.name, TrainingEpoch).values(**row)
        connection.execute(insert.on_conflict_do_update(index_elements=["training_job_id", "epoch"], set_=again))


def record_checkpoint(farm: Farm, lease: Lease, *, last: str | None = None, best: str | None = None) -> list[str]:
    """Point the row at checkpoints that are stored; the keys that it names no more. Raises LeaseLost.

    A checkpoint is progress that a dead worker cannot take back, so the attempts count anew from it: a job of many days may lose many
    workers, and only one that dies again and again at the same place is poison.
    """
    table = TRAINING_JOBS
    new = {name: key for name, key in (("checkpoint_key", last), ("best_key", best)) if key is not None}
    with farm.write() as connection:
        before = connection.execute(
            select(table.c.checkpoint_key, table.c.best_key).where(table.c.id == lease.row_id)
        ).one()
        _move(farm, connection, lease, attempts=1, **new)
        after = connection.execute(
            select(table.c.checkpoint_key, table.c.best_key).where(table.c.id == lease.row_id)
        ).one()
    return [key for key in before if key is not None and key not in after]


def finish_training(farm: Farm, lease: Lease, model_id: int) -> None:
    """The network is trained, exported and registered. Raises LeaseLost."""
    with farm.write() as connection:
        done = {"state": WorkState.DONE, "finished_at": db_now(), "error": None}
        _move(farm, connection, lease, model_id=model_id, **done, **ENDED)


def fail_training(farm: Farm, lease: Lease, said: str) -> None:
    """Fail the job for good; its figures and checkpoints stay. Raises LeaseLost."""
    with farm.write() as connection:
        _move(farm, connection, lease, state=WorkState.FAILED, finished_at=db_now(), error=said, **ENDED)


def attempts_since_checkpoint(farm: Farm, lease: Lease) -> int:
    """Attempts that count against the job: those since its last stored checkpoint."""
    with farm.read() as connection:
        row = select(TRAINING_JOBS.c.attempts).where(TRAINING_JOBS.c.id == lease.row_id)
        return int(connection.execute(row).scalar_one())


def check_held(farm: Farm, lease: Lease) -> None:
    """Raises LeaseLost where the job was cancelled or taken over."""
    table = TRAINING_JOBS
    with farm.read() as connection:
        found = connection.execute(select(func.count()).select_from(table).where(*held(lease.work)), lease.holds)
        if not found.scalar_one():
            raise LeaseLost(f"training job {lease.row_id} was cancelled or taken over")


def _move(farm: Farm, connection: Connection, lease: Lease, **values: Any) -> None:
    if not extend(farm, connection, lease):
        raise LeaseLost(f"training job {lease.row_id} was cancelled or taken over")
    connection.execute(update(TRAINING_JOBS).where(TRAINING_JOBS.c.id == lease.row_id).values(**values))
