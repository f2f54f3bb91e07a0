"""The doorbell: the Celery app, queue and task names, and every Celery setting. Knows nothing of rows, videos or engines.

A message only says "row N may be ready" (farm/jobs/claim.py decides), so every setting here may lose or double a message, and none may
hold one back for long.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from celery import Celery
from kombu import Queue
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from farm.contracts import ENGINE_NAMES
from farm.errors import BadInput, QueueAway

SPLIT_QUEUE = "split"
INFER_QUEUE = "infer"
TRAIN_QUEUE = "train"


def infer_queue(engine: str) -> str:
    """The queue of the workers that run this engine: a batch is never drawn by a worker that could only fail it."""
    return f"{INFER_QUEUE}.{engine}"


INFER_QUEUES = {engine: infer_queue(engine) for engine in ENGINE_NAMES}
"""Queue by engine."""
QUEUES = (SPLIT_QUEUE, *INFER_QUEUES.values(), TRAIN_QUEUE)

SPLIT_TASK = "farm.split"
INFER_TASK = "farm.infer"
TRAIN_TASK = "farm.train"

PRIORITY_STEPS = (0, 3, 6, 9)
"""Celery keeps one Redis list per step; 0 is served first."""

_SEPARATOR = "\x06\x16"
"""What kombu puts between a queue's name and the priority step of a list (its `Channel.sep`)."""

VISIBILITY_TIMEOUT_SECONDS = 24 * 3600
"""How long an unacknowledged message waits before kombu delivers it again. Long on purpose: a short one runs a long task twice while the
first is alive. The leases in SQL bring back work of a dead worker, and the dispatcher sweeps what it left unacknowledged."""


def unacked_key(queue: str) -> str:
    """Redis key of the messages that workers of this queue hold unacknowledged."""
    return f"unacked.{queue}"


def make_app(redis_url: str, queue: str = "") -> Celery:
    """The Celery app on this Redis (redis://, rediss:// or redis+socket:///path). Opens no connection.

    A worker names its `queue`, so that its unacknowledged messages are counted apart; who only rings leaves it out.
    Raises BadInput where no URL is given: Celery would turn to RabbitMQ on this machine unasked.
    """
    if not redis_url:
        raise BadInput("no Redis is configured: set FARM_REDIS_URL")
    app = Celery("farm", broker=redis_url, set_as_current=True)
    app.conf.update(
        task_queues=[Queue(name) for name in QUEUES],
        task_default_queue=SPLIT_QUEUE,
        task_create_missing_queues=True,
        task_serializer="json",
        accept_content=["json"],
        # a result nobody reads costs a write per task: the result is in SQL
        result_backend=None,
        task_ignore_result=True,
        # acknowledged when done, so that a broker's restore may bring it back; the lease keeps a second delivery harmless
        task_acks_late=True,
        # requeueing on a lost worker loops a poison task for ever; the row's attempts stop it instead
        task_reject_on_worker_lost=False,
        task_acks_on_failure=True,
        task_acks_on_timeout=True,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        # None is for ever: the default of 100 tries ends a worker after a long outage of Redis
        broker_connection_max_retries=None,
        broker_transport_options=transport_options(queue),
        # the shortest of the three visibility timeouts on a broker wins, so all three are set
        result_backend_transport_options={"visibility_timeout": VISIBILITY_TIMEOUT_SECONDS},
        visibility_timeout=VISIBILITY_TIMEOUT_SECONDS,
        # the ringer answers within seconds: the dispatcher tries again anyway
        task_publish_retry=False,
        worker_send_task_events=False,
        task_send_sent_event=False,
        worker_enable_remote_control=True,
        worker_disable_rate_limits=True,
        worker_redirect_stdouts=False,
        enable_utc=True,
    )
    return app


def transport_options(queue: str = "") -> dict[str, Any]:
    """Kombu's options for the Redis transport, for a worker of this queue."""
    options: dict[str, Any] = {
        "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
        "priority_steps": list(PRIORITY_STEPS),
        "queue_order_strategy": "priority",
        "sep": _SEPARATOR,
        "socket_connect_timeout": 5.0,
        "socket_timeout": 30.0,
        "socket_keepalive": True,
        "health_check_interval": 25,
    }
    if queue:
        key = unacked_key(queue)
        options |= {"unacked_key": key, "unacked_index_key": f"{key}.index", "unacked_mutex_key": f"{key}.mutex"}
    return options


def priority_step(priority: int) -> int:
    """The step (0, 3, 6 or 9) that a priority of 0 to 9 is served in."""
    return max(step for step in PRIORITY_STEPS if step <= max(0, priority))


@dataclass(frozen=True, slots=True)
class Ring:
    """One message to send."""

    task: str
    queue: str
    row_id: int
    #: 0 (first) to 9 (last)
    priority: int
    #: what Flower shows as the task's arguments
    shown: str


class Doorbell:
    """Sends messages and counts those that Redis holds. Every method raises QueueAway where Redis does not answer."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def ring(self, rings: list[Ring]) -> None:
        """Send these messages over one connection."""
        with _redis_errors(), self._app.producer_pool.acquire(block=True) as producer:
            for ring in rings:
                self._app.send_task(
                    ring.task,
                    args=(ring.row_id,),
                    argsrepr=f"({ring.shown})",
                    queue=ring.queue,
                    priority=priority_step(ring.priority),
                    producer=producer,
                    ignore_result=True,
                )

    def count(self, queues: tuple[str, ...] = QUEUES) -> dict[str, int]:
        """Messages per queue, waiting in all priority lists or held unacknowledged by a worker."""
        with self._redis() as redis:
            pipe = redis.pipeline(transaction=False)
            for queue in queues:
                for step in PRIORITY_STEPS:
                    pipe.llen(_list_key(queue, step))
                pipe.hlen(unacked_key(queue))
            counts: list[int] = pipe.execute()
        width = len(PRIORITY_STEPS) + 1
        return {queue: sum(counts[i * width : (i + 1) * width]) for i, queue in enumerate(queues)}

    def held_longer_than(self, queue: str, seconds: float, now: float) -> dict[str, bytes]:
        """Messages by delivery tag that workers hold for longer than this, at most 100; `now` is this machine's time()."""
        key = unacked_key(queue)
        with self._redis() as redis:
            tags = redis.zrangebyscore(f"{key}.index", 0, now - seconds, start=0, num=100)
            bodies = redis.hmget(key, tags) if tags else []
        return {_text(tag): body for tag, body in zip(tags, bodies, strict=True) if body is not None}

    def forget(self, queue: str, tags: list[str]) -> None:
        """Drop these unacknowledged messages."""
        key = unacked_key(queue)
        with self._redis() as redis:
            redis.pipeline().hdel(key, *tags).zrem(f"{key}.index", *tags).execute()

    def close(self) -> None:
        """Give the connections back."""
        self._app.close()

    @contextmanager
    def _redis(self) -> Iterator[Any]:
        with _redis_errors(), self._app.pool.acquire(block=True) as connection:
            channel: Any = connection.default_channel  # type: ignore[attr-defined]  # the stubs say Producer
            yield channel.client


def _list_key(queue: str, step: int) -> str:
    return f"{queue}{_SEPARATOR}{step}" if step else queue


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


@contextmanager
def _redis_errors() -> Iterator[None]:
    try:
        yield
    except (OperationalError, RedisError, OSError) as error:
        raise QueueAway(f"Redis did not answer ({error}); is it running, and is FARM_REDIS_URL right?") from error
