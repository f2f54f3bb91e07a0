"""Training jobs as a reader wants them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from farm.db.models import WorkState
from farm.errors import BadInput
from farm.farm import Farm
from farm.jobs.tables import MODELS, TRAINING_EPOCHS, TRAINING_JOBS

LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class TrainingStatus:
    """One training job."""

    job: int
    name: str
    state: str
    epoch: int
    epochs_total: int | None
    images: int
    #: of the last epoch
    metrics: dict[str, Any]
    #: name@version of the registered network
    model: str | None
    device: str | None
    attempts: int
    error: str | None
    checkpoint_key: str | None
    #: seconds since the epoch
    created_at: float
    finished_at: float | None


@dataclass(frozen=True, slots=True)
class TrainedEpoch:
    """One epoch's figures."""

    epoch: int
    metrics: dict[str, Any]
    recorded_at: float


def training_jobs(farm: Farm, limit: int = 50) -> list[TrainingStatus]:
    """The latest jobs, newest first."""
    with farm.read() as connection:
        rows = connection.execute(_jobs().order_by(TRAINING_JOBS.c.id.desc()).limit(limit)).all()
    return [_status(row) for row in rows]


def training_job(farm: Farm, job_id: int) -> tuple[TrainingStatus, list[TrainedEpoch]]:
    """One job and its epochs in order. Raises BadInput for an unknown one."""
    epochs = TRAINING_EPOCHS
    history = select(epochs.c.epoch, epochs.c.metrics, epochs.c.recorded_at).where(epochs.c.training_job_id == job_id)
    with farm.read() as connection:
        row = connection.execute(_jobs().where(TRAINING_JOBS.c.id == job_id)).one_or_none()
        if row is None:
            raise BadInput(f"there is no training job {job_id}")
        return _status(row), [TrainedEpoch(*each) for each in connection.execute(history.order_by(epochs.c.epoch))]


def wait_training(
    farm: Farm, job_id: int, on_progress: Callable[[TrainingStatus], None], alive: Callable[[], None]
) -> TrainingStatus:
    """Return when the job has ended; `alive` may raise. Raises BadInput for an unknown job."""
    while True:
        alive()
        job, _ = training_job(farm, job_id)
        on_progress(job)
        if job.state not in (WorkState.READY, WorkState.LEASED):
            return job
        time.sleep(LOOK_SECONDS)


def _jobs() -> Any:
    jobs = TRAINING_JOBS
    columns = (
        *(jobs.c[name] for name in ("id", "name", "state", "epoch", "epochs_total", "images", "metrics")),
        (MODELS.c.name + "@" + MODELS.c.version).label("model"),
        *(jobs.c[name] for name in ("device", "attempts", "error", "checkpoint_key", "created_at", "finished_at")),
    )
    return select(*columns).outerjoin(MODELS, MODELS.c.id == jobs.c.model_id)


def _status(row: Any) -> TrainingStatus:
    values = list(row)
    values[6] = values[6] or {}
    return TrainingStatus(*values)
