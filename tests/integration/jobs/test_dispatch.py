"""The dispatcher against a real Redis: a bounded window, fair turns, and every way of losing a message."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import redis
from sqlalchemy import insert, update

from farm.db.models import CropBatchRow, ScanVideo, Video
from farm.db.session import db_now
from farm.errors import QueueAway
from farm.jobs.cancel import cancel
from farm.jobs.claim import claim
from farm.jobs.dispatch import Dispatcher
from farm.queue import PRIORITY_STEPS, SPLIT_QUEUE, Doorbell, infer_queue, make_app, unacked_key

WINDOW = 8


@pytest.fixture
def broker(redis_server):
    with redis.Redis(unix_socket_path=str(redis_server.socket)) as client:
        yield client


@pytest.fixture
def doorbell(redis_server):
    bell = Doorbell(make_app(redis_server.url))
    yield bell
    bell.close()


@pytest.fixture(autouse=True)
def look_every_time(monkeypatch):
    """A test's ticks follow each other at once, a farm's look for lost rows once a second."""
    monkeypatch.setattr("farm.jobs.dispatch.LOST_SECONDS", 0.0)


@pytest.fixture
def dispatcher(impatient, doorbell):
    return Dispatcher(impatient(dispatch_window=WINDOW), doorbell)


def rung(broker, queue=SPLIT_QUEUE):
    """Row ids in the order in which workers would get them."""
    names = [queue if not step else f"{queue}\x06\x16{step}" for step in PRIORITY_STEPS]
    messages = [json.loads(body) for name in names for body in reversed(broker.lrange(name, 0, -1))]
    return [row_of(message) for message in messages]


def row_of(message):
    from base64 import b64decode

    return json.loads(b64decode(message["body"]))[0][0]


def hold(broker, queue=SPLIT_QUEUE, held_since=None):
    """Take one message as a worker does: out of its list, into the unacknowledged ones."""
    import time

    body = broker.rpop(f"{queue}\x06\x166")
    message = json.loads(body)
    tag = message["properties"]["delivery_tag"]
    broker.hset(unacked_key(queue), tag, json.dumps([message, "", queue]))
    broker.zadd(f"{unacked_key(queue)}.index", {tag: time.time() if held_since is None else held_since})
    return row_of(message)


def crowd(farm, rows, folder, videos, **options):
    """A scan of many videos, made with two statements."""
    scan_id = rows.submit(folder, {"first.mp4": folder.name.encode()}, **options)
    with farm.sessions.begin() as session:
        common = {"size_bytes": 1, "object_key": "videos/x", "created_at": 0.0}
        made = insert(Video).returning(Video.id)
        ids = session.scalars(made, [{"sha256": f"{folder.name}-{i}", **common} for i in range(videos - 1)]).all()
        if ids:
            session.execute(insert(ScanVideo), [{"scan_id": scan_id, "video_id": video_id} for video_id in ids])
    return scan_id


def set_back(farm, work, seconds):
    """As if these rows had been rung for that long ago."""
    with farm.sessions.begin() as session:
        session.execute(update(work).where(work.rung_at > 0).values(rung_at=db_now() - seconds))


def test_thousands_of_ready_rows_keep_a_window_of_messages_in_redis(farm, rows, broker, doorbell, dispatcher, tmp_path):
    crowd(farm, rows, tmp_path / "in", 3000)
    for _ in range(3):
        dispatcher.tick()

    assert doorbell.count()[SPLIT_QUEUE] == len(rung(broker)) == WINDOW
    for _ in range(3):
        hold(broker)
    dispatcher.tick()
    assert doorbell.count()[SPLIT_QUEUE] == WINDOW, "unacknowledged messages count"
    assert len(rung(broker)) == WINDOW - 3


def test_messages_of_every_priority_count_towards_the_window(farm, rows, broker, doorbell, dispatcher, tmp_path):
    for priority in (9, 6, 3, 0):
        crowd(farm, rows, tmp_path / f"p{priority}", 5, priority=priority)
        dispatcher.tick()

    assert doorbell.count()[SPLIT_QUEUE] == WINDOW
    assert broker.llen(f"{SPLIT_QUEUE}\x06\x169") == 5
    assert broker.llen(f"{SPLIT_QUEUE}\x06\x166") == 3


def test_a_small_scan_gets_its_turns_beside_a_huge_one(farm, rows, broker, dispatcher, tmp_path):
    huge = crowd(farm, rows, tmp_path / "huge", 500)
    small = crowd(farm, rows, tmp_path / "small", 3)
    of = {video.id: scan for scan in (huge, small) for video in rows.videos(scan)}
    dispatcher.tick()

    assert Counter(of[row] for row in rung(broker)) == {huge: WINDOW - 3, small: 3}
    assert [of[row] for row in rung(broker)[:4]] == [huge, small, huge, small]


def test_turns_go_round_when_there_is_room_for_one_at_a_time(farm, rows, broker, impatient, doorbell, tmp_path):
    scans = [crowd(farm, rows, tmp_path / name, 5) for name in "abc"]
    of = {video.id: scan for scan in scans for video in rows.videos(scan)}
    dispatcher = Dispatcher(impatient(dispatch_window=1), doorbell)
    served = []
    for _ in range(6):
        dispatcher.tick()
        served.append(of[rung(broker)[0]])
        broker.flushall()

    assert served == scans * 2


def test_an_urgent_scan_goes_before_those_that_wait_and_before_those_in_redis(farm, rows, broker, dispatcher, tmp_path):
    crowd(farm, rows, tmp_path / "slow", 100, priority=6)
    dispatcher.tick()
    for _ in range(2):
        hold(broker)
    broker.delete(unacked_key(SPLIT_QUEUE))
    urgent = crowd(farm, rows, tmp_path / "urgent", 2, priority=1)
    dispatcher.tick()

    assert rung(broker)[:2] == [video.id for video in rows.videos(urgent)]


def test_a_row_is_rung_for_once(farm, rows, broker, dispatcher, tmp_path):
    crowd(farm, rows, tmp_path / "in", 3)

    assert [dispatcher.tick() for _ in range(3)] == [3, 0, 0]


def test_a_lost_message_is_rung_again_after_a_while(farm, rows, broker, dispatcher, tmp_path):
    crowd(farm, rows, tmp_path / "in", 3)
    dispatcher.tick()
    lost = hold(broker)
    broker.delete(unacked_key(SPLIT_QUEUE), f"{unacked_key(SPLIT_QUEUE)}.index")
    assert dispatcher.tick() == 0, "it may be on its way"

    with farm.sessions.begin() as session:
        session.get_one(ScanVideo, lost).rung_at -= farm.settings.ring_again_seconds + 1
    assert dispatcher.tick() == 1
    assert rung(broker).count(lost) == 1


def test_a_flushed_redis_is_filled_again_within_seconds(farm, rows, broker, dispatcher, tmp_path):
    crowd(farm, rows, tmp_path / "in", 5)
    dispatcher.tick()
    broker.flushall()
    assert dispatcher.tick() == 0

    set_back(farm, ScanVideo, 3)
    assert dispatcher.tick() == 5


def test_a_row_whose_lease_ran_out_is_rung_again(impatient, rows, broker, doorbell, tmp_path):
    farm = impatient(lease_seconds=0.0)
    dispatcher = Dispatcher(farm, doorbell)
    video = rows.videos(rows.submit(tmp_path / "in", {"a.mp4": b"a"}))[0]
    dispatcher.tick()
    hold(broker)
    claim(farm, ScanVideo, video.id, "dies")
    set_back(farm, ScanVideo, 1)

    assert dispatcher.tick() == 1


def test_a_row_in_its_pause_after_a_failure_is_not_rung_for(farm, rows, dispatcher, tmp_path):
    video = rows.videos(rows.submit(tmp_path / "in", {"a.mp4": b"a"}))[0]
    with farm.sessions.begin() as session:
        session.get_one(ScanVideo, video.id).ready_at = 1e11

    assert dispatcher.tick() == 0


def test_messages_that_a_killed_worker_held_do_not_fill_the_window_for_ever(
    farm, rows, broker, doorbell, dispatcher, tmp_path
):
    crowd(farm, rows, tmp_path / "in", 100)
    dispatcher.tick()
    working = hold(broker, held_since=1.0)
    claim(farm, ScanVideo, working, "alive")
    for _ in range(WINDOW - 1):
        hold(broker, held_since=1.0)
    dispatcher.sweep()

    assert broker.hlen(unacked_key(SPLIT_QUEUE)) == 1, "the one whose row is being worked on"
    dispatcher.tick()
    assert doorbell.count()[SPLIT_QUEUE] == WINDOW


def test_a_cancelled_scan_is_not_rung_for(farm, rows, broker, dispatcher, tmp_path):
    scan_id = crowd(farm, rows, tmp_path / "in", 5)
    cancel(farm, scan_id)

    assert dispatcher.tick() == 0


def test_batches_are_rung_on_their_own_queue_with_readable_arguments(rows, broker, dispatcher, tmp_path):
    video = rows.videos(rows.submit(tmp_path / "in", {"a clip\nwith a newline.mp4": b"a"}))[0]
    rows.split(video, batches=2, crops=3)
    dispatcher.tick()

    batches = rows.batches(video.scan_id)
    assert rung(broker, infer_queue("simulated")) == [batch.id for batch in batches]
    message = json.loads(broker.lindex(f"{infer_queue('simulated')}\x06\x166", -1))
    assert (
        message["headers"]["argsrepr"] == rf"('a clip\nwith a newline.mp4', scan {video.scan_id}, batch 0 of 3 crops)"
    )
    assert rows.batches(video.scan_id)[0].rung_at > 0


def test_where_redis_is_away_nothing_counts_as_rung(farm, rows, mortal_redis, impatient, tmp_path):
    crowd(farm, rows, tmp_path / "in", 3)
    doorbell = Doorbell(make_app(mortal_redis.url))
    dispatcher = Dispatcher(farm, doorbell)
    assert doorbell.count()[SPLIT_QUEUE] == 0
    mortal_redis.process.kill()
    mortal_redis.process.wait()

    with pytest.raises(QueueAway, match="Redis did not answer"):
        dispatcher.tick()
    with farm.sessions() as session:
        assert session.query(ScanVideo).filter(ScanVideo.rung_at > 0).count() == 0
        assert session.query(CropBatchRow).count() == 0
