"""The Celery worker's entry: `celery -A workers.app worker -Q split`, or `python -m workers.app split` as the farm starts it.

A split worker is a prefork pool, one task per child, with limits on time and memory: a hostile file may take its child down. An infer
worker is one node per card on a small threads pool, so that one thread fetches and stores while another computes.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import socket
import sys
import threading
import time
import warnings
from functools import partial
from typing import Any, NoReturn

from celery import Celery, signals
from celery.exceptions import SecurityWarning, SoftTimeLimitExceeded, TimeLimitExceeded

from farm.db.models import CropBatchRow, ScanVideo, TrainingJob
from farm.embedded import CANNOT_START, EXIT_CANNOT_START
from farm.errors import BadInput, BadVideo, EngineBusy, Fatal, Retryable
from farm.farm import Farm
from farm.jobs.claim import LeaseLost, Work, lease_of, release_worker
from farm.jobs.fail import fail
from farm.jobs.metrics import serve_metrics
from farm.jobs.models import find_model
from farm.queue import (
    INFER_QUEUE,
    INFER_TASK,
    QUEUES,
    SPLIT_QUEUE,
    SPLIT_TASK,
    TRAIN_QUEUE,
    TRAIN_TASK,
    infer_queue,
    make_app,
    transport_options,
)
from farm.settings import read_settings, settings
from workers.cards.find import card_address, card_of, is_address

log = logging.getLogger(__name__)

INFER_THREADS = 3
"""One computes, one has fetched and waits for its turn, one stores."""

HARD_LIMIT_EXTRA_SECONDS = 30
"""After the soft time limit a child has this long to end by itself before it is killed."""

_WORK: dict[str, Work] = {SPLIT_TASK: ScanVideo, INFER_TASK: CropBatchRow, TRAIN_TASK: TrainingJob}


class WorkerDied(Retryable):
    """The process that worked on a row was killed or crashed."""


def __getattr__(name: str) -> Celery:
    """`app`, made when `celery -A workers.app` asks for it: nothing reads the environment at import."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()["app"] = app = worker_app()
    return app


def worker_app(queue: str = "", *, patient: bool = True) -> Celery:
    """The farm's Celery app with the tasks in it and the hooks that open and close a worker's resources.

    A `patient` worker outlives its card's quarantine, to be resumed.
    """
    app = make_app(settings().redis_url, queue)
    app.conf.include = ["workers.tasks"]
    limit = settings().split_time_limit_seconds
    app.conf.task_annotations = {SPLIT_TASK: {"soft_time_limit": limit, "time_limit": limit + HARD_LIMIT_EXTRA_SECONDS}}
    # children are forked from a parent that opened no runtime, no file of the farm and no connection to SQL; each child opens its own
    app.conf.worker_pool_start_method = "fork"
    app.conf.worker_max_memory_per_child = settings().split_memory_limit_bytes // 1024
    signals.celeryd_init.connect(_name_queue, weak=False)
    opener = partial(_open_threads_worker, patient=patient)
    signals.worker_init.connect(opener, weak=False, dispatch_uid="farm-open")
    signals.worker_process_init.connect(_open_child, weak=False)
    signals.worker_process_shutdown.connect(_close, weak=False)
    signals.worker_shutting_down.connect(_stop_training, weak=False)
    signals.worker_shutdown.connect(_close, weak=False)
    signals.task_failure.connect(_child_died, weak=False)
    return app


def run_worker(
    queue: str,
    card: str = "",
    concurrency: int = 0,
    *,
    events: bool = False,
    sole: bool = False,
    loglevel: str = "INFO",
) -> int:
    """Work on one queue until told to stop; the process's exit status. `card` names the node (and the device, where an engine has several).

    `sole` promises that no other node has this name, so that rows leased to it are a dead predecessor's and free at once. A worker
    without its engine raises SystemExit with EXIT_CANNOT_START and says why.
    """
    # celery warns root of pickled messages; this app takes JSON alone
    warnings.filterwarnings("ignore", category=SecurityWarning)
    drawn = infer_queue(settings().engine) if queue == INFER_QUEUE else queue
    app = worker_app(drawn, patient=not sole)
    pool = "prefork" if queue == SPLIT_QUEUE else "threads"
    if queue == INFER_QUEUE:
        card = card_of(card or settings().card, settings().engine, settings().vart_device)
    node = f"{node_name(queue, card, sole)}@{socket.gethostname()}"
    if sole:
        _free_leases_of(node)
    worker = app.Worker(
        hostname=node,
        pool=pool,
        concurrency=_slots(queue, concurrency),
        queues=[drawn, f"{queue}.{socket.gethostname()}.{card}"] if card else [drawn],
        loglevel=loglevel,
        task_events=events,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=not events,
        quiet=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


def node_name(queue: str, card: str, sole: bool = False) -> str:
    """What a worker is called, before the `@host`: by its card, which takes one worker, else by its process, for a host may have many.

    The `sole` one is number 0, so that its successor finds its leases.
    """
    if card:
        return f"vck5000-{card}" if is_address(card) else card
    device = settings().training_device.replace(":", "-") or "nowhere"
    kind = {SPLIT_QUEUE: "split", TRAIN_QUEUE: f"train-{device}"}.get(queue, "cpu")
    return f"{kind}-{0 if sole else os.getpid()}"


def _slots(queue: str, wanted: int) -> int:
    """Tasks at once: a device trains one network, whatever is wanted."""
    if queue == TRAIN_QUEUE:
        return 1
    return wanted or (INFER_THREADS if queue == INFER_QUEUE else 1)


def _free_leases_of(node: str) -> None:
    farm = Farm.open(settings())
    try:
        release_worker(farm, f"{node}/", refund=False)
    except Retryable as error:
        log.warning("rows of a dead predecessor wait for their leases to end: %s", error)
    finally:
        farm.close()


def _name_queue(instance: Any, conf: Any, options: dict[str, Any], **_: Any) -> None:
    """Keep this worker's unacknowledged messages under its own queue's key, so that the dispatcher can count them."""
    wanted = options.get("queues") or []
    names = wanted.split(",") if isinstance(wanted, str) else list(wanted)
    ours = [queue for queue in QUEUES if queue in names]
    if len(ours) == 1:
        conf.broker_transport_options = transport_options(ours[0])


def _open_threads_worker(sender: Any, *, patient: bool, **_: Any) -> None:
    """Open the engine before the first message, so that a missing card is an error now. Raises SystemExit where it cannot be had."""
    from workers.memory import keep_freed_memory

    if "thread" not in str(getattr(sender, "pool_cls", "")):
        return
    keep_freed_memory()
    busy_until = time.monotonic() + settings().card_busy_seconds
    while True:
        try:
            _open_engine(sender, patient=patient)
            return
        except Retryable as error:
            log.warning("the worker waits to open its engine: %s", error)
            if isinstance(error, EngineBusy) and time.monotonic() > busy_until:
                _cannot_start(error)
            time.sleep(2.0)
        except Fatal as error:
            _cannot_start(error)


def _open_engine(sender: Any, *, patient: bool) -> None:
    """Open what this worker needs. Raises FarmError."""
    from workers.cards.attach import attach
    from workers.resources import process
    from workers.trainer_process import check_trainer

    drawn = sender.app.amqp.queues.consume_from
    if TRAIN_QUEUE in drawn:
        check_trainer(settings().training_device)
        return
    here = process()
    chosen = here.farm.settings
    if infer_queue(chosen.engine) not in drawn:
        raise BadInput(
            f"this worker draws from {', '.join(drawn)}, but runs the engine {chosen.engine} (FARM_ENGINE): "
            f"start it with -Q {infer_queue(chosen.engine)}"
        )
    if card_of(chosen.card, chosen.engine, chosen.vart_device):
        here.watches.append(attach(sender, here, patient=patient))
        serve_metrics(here.farm, socket.gethostname())
    else:
        here.engines.open(chosen.engine, find_model(here.farm, chosen.model))


def _cannot_start(error: Exception) -> NoReturn:
    sys.stderr.write(f"{CANNOT_START}{error}\n")
    sys.stderr.flush()
    raise SystemExit(EXIT_CANNOT_START) from error


def _open_child(**_: Any) -> None:
    """In a fresh child of a prefork pool: bound its memory; its resources are opened by its first task."""
    limit = settings().split_memory_limit_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _stop_training(**_: Any) -> None:
    """A training may last days; what a worker that is told to end holds goes on elsewhere."""
    from workers.training import stopping

    stopping.set()


def _close(**_: Any) -> None:
    from workers.resources import close_process

    close_process()


def _child_died(sender: Any, task_id: str, exception: BaseException, args: Any, **_: Any) -> None:
    """In a prefork worker's parent: a child crashed or was killed over its task. End its attempt now, not when its lease runs out."""
    if threading.current_thread() is not threading.main_thread() or not args:
        return
    if isinstance(exception, TimeLimitExceeded | SoftTimeLimitExceeded):
        error: Exception = BadVideo(
            f"reading this video took longer than the limit of {settings().split_time_limit_seconds} s"
        )
    else:
        error = WorkerDied(f"the process that worked on it died: {exception}")
    farm = Farm.open(settings())
    try:
        lease = lease_of(farm, _WORK[sender.name], args[0], f"{sender.request.hostname}/{task_id}:")
        if lease is not None:
            fail(farm, lease, error)
    except (Retryable, LeaseLost) as away:
        log.warning("the attempt of a dead process ends when its lease does: %s", away)
    finally:
        farm.close()


def main(argv: list[str] | None = None) -> int:
    """`python -m workers.app QUEUE [--card NAME] [--engine NAME] [--device DEVICE] [--concurrency N] [--events]`."""
    parser = argparse.ArgumentParser(prog="workers.app", description="Work on one queue of the farm that FARM_* names.")
    parser.add_argument("queue", choices=(SPLIT_QUEUE, INFER_QUEUE, TRAIN_QUEUE))
    parser.add_argument("--card", default="")
    parser.add_argument("--engine", default="", help="of an infer worker, before FARM_ENGINE")
    parser.add_argument("--device", default="", help="of a train worker: cuda:0, cpu")
    parser.add_argument("--concurrency", type=int, default=0)
    parser.add_argument("--events", action="store_true", help="send events for Flower")
    parser.add_argument("--loglevel", default="INFO")
    chosen = parser.parse_args(argv)
    card = card_address(read_settings(), chosen.card)
    if card:
        os.environ["FARM_CARD"] = card  # noqa: TID251  written, for the settings that this process reads next
    if chosen.engine:
        os.environ["FARM_ENGINE"] = chosen.engine  # noqa: TID251  likewise
    if chosen.device:
        os.environ["FARM_TRAINING_DEVICE"] = chosen.device  # noqa: TID251  likewise
    try:
        return run_worker(chosen.queue, card, chosen.concurrency, events=chosen.events, loglevel=chosen.loglevel)
    except BadInput as error:
        sys.stderr.write(f"{CANNOT_START}{error}\n")
        return EXIT_CANNOT_START


if __name__ == "__main__":
    from workers.app import main as imported_main

    sys.exit(imported_main())
