"""The Celery settings that the farm's promises rest on."""

from __future__ import annotations

import pytest
from celery.app.defaults import NAMESPACES, flatten

from farm.errors import BadInput, QueueAway
from farm.queue import QUEUES, Doorbell, make_app, priority_step, transport_options, unacked_key
from farm.settings import Settings


@pytest.fixture
def app():
    """An app on a Redis that is not there: nothing here may connect."""
    return make_app("redis+socket:///nowhere/redis.sock")


def test_every_setting_is_one_that_this_celery_knows(app):
    known = {key for key, _ in flatten(NAMESPACES)} | {"visibility_timeout", "deprecated_settings"}

    assert set(app.conf.changes) <= known


def test_a_message_is_acknowledged_late_and_one_at_a_time_and_never_requeued_for_a_lost_worker(app):
    assert app.conf.task_acks_late and not app.conf.task_reject_on_worker_lost
    assert app.conf.worker_prefetch_multiplier == 1


def test_no_task_outlives_the_visibility_timeout_which_is_the_same_in_all_three_places(app):
    places = [
        app.conf.broker_transport_options["visibility_timeout"],
        app.conf.result_backend_transport_options["visibility_timeout"],
        app.conf.visibility_timeout,
    ]
    assert len(set(places)) == 1
    assert places[0] > 10 * Settings().split_time_limit_seconds


def test_a_worker_outlasts_any_outage_of_redis(app):
    assert app.conf.broker_connection_max_retries is None
    assert app.conf.broker_connection_retry_on_startup


def test_nothing_is_kept_as_a_result(app):
    assert app.conf.result_backend is None and app.conf.task_ignore_result


def test_workers_of_each_queue_keep_their_unacknowledged_messages_apart():
    keys = {transport_options(queue)["unacked_key"] for queue in QUEUES}

    assert keys == {unacked_key(queue) for queue in QUEUES}
    assert len(keys) == len(QUEUES)
    assert "unacked_key" not in transport_options()


@pytest.mark.parametrize(("priority", "step"), [(0, 0), (2, 0), (3, 3), (6, 6), (8, 6), (9, 9)])
def test_a_priority_is_served_in_its_step(priority, step):
    assert priority_step(priority) == step


def test_a_redis_that_is_not_there_is_said_so_with_what_to_look_at(app):
    with pytest.raises(QueueAway, match="FARM_REDIS_URL"):
        Doorbell(app).count()


def test_without_a_url_no_other_broker_is_turned_to():
    with pytest.raises(BadInput, match="FARM_REDIS_URL"):
        make_app("")
