"""The tasks. A body claims its row and hands it on: sources -> crops (splitter.py), crops -> scores (scorer.py)."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from typing import Any

from celery import Task, shared_task
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from farm.db.models import CropBatchRow, ScanVideo, TrainingJob
from farm.queue import INFER_TASK, SPLIT_TASK, TRAIN_TASK
from workers.attempt import attempt, turn_away
from workers.resources import process
from workers.scorer import score_batch
from workers.splitter import split_video
from workers.training import train_network


@shared_task(bind=True, name=SPLIT_TASK)
def split(self: Task[Any, Any], scan_video_id: int) -> str:
    """Split one video of one scan into crop batches."""
    here, worker = process(), _worker(self)

    return attempt(here.farm, ScanVideo, scan_video_id, worker, partial(split_video, here, tell=partial(_tell, self)))


@shared_task(bind=True, name=INFER_TASK)
def infer(self: Task[Any, Any], crop_batch_id: int) -> str:
    """Score one crop batch."""
    here, worker = process(), _worker(self)
    with here.post.working() as admitted:
        if not admitted:
            return turn_away(here.farm, CropBatchRow, crop_batch_id)
        score, engine = partial(score_batch, here), here.farm.settings.engine
        return attempt(here.farm, CropBatchRow, crop_batch_id, worker, score, engine)


@shared_task(bind=True, name=TRAIN_TASK)
def train(self: Task[Any, Any], training_job_id: int) -> str:
    """Train one network."""
    farm, worker = process().farm, _worker(self)
    return attempt(farm, TrainingJob, training_job_id, worker, partial(train_network, farm, tell=partial(_tell, self)))


def _tell(task: Task[Any, Any], said: str) -> None:
    """Live progress for Flower."""
    with suppress(OperationalError, RedisError, OSError):  # nobody needs to hear it
        task.send_event("task-progress", result=said, retry=False)


def _worker(task: Task[Any, Any]) -> str:
    """Who holds a lease: the node, the message and the process, for whoever looks for a row's worker or cleans up after it."""
    return f"{task.request.hostname}/{task.request.id}:{os.getpid()}"
