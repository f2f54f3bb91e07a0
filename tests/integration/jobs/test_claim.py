"""Leases on a real SQLite and a real PostgreSQL."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from farm.db.models import CropBatchRow, ScanVideo, WorkState
from farm.errors import BadInput, BadVideo, DatabaseAway, EngineMissing, StorageAway
from farm.jobs.claim import LeaseLost, claim, release, release_worker, renew
from farm.jobs.fail import bury_abandoned, fail
from farm.jobs.hold import Hold
from farm.jobs.record import StoredBatch, finish_split, record_split_batches


@pytest.fixture
def video(rows, tmp_path):
    """A submitted video that nobody claimed yet."""
    return rows.videos(rows.submit(tmp_path / "in", {"one.mp4": b"one"}))[0]


@pytest.fixture
def reread(rows, video):
    """Reads the video's row again."""
    return lambda: rows.videos(video.scan_id)[0]


def test_a_row_is_leased_to_one_of_many_that_ask_at_once(farm, video):
    with ThreadPoolExecutor(8) as pool:
        leases = list(pool.map(lambda i: claim(farm, ScanVideo, video.id, f"worker-{i}"), range(16)))

    assert Counter(lease is None for lease in leases) == {True: 15, False: 1}


def test_a_second_message_for_a_row_that_is_done_is_dropped(farm, rows, video):
    rows.split(video, batches=0)

    assert claim(farm, ScanVideo, video.id, "late") is None


def test_a_lease_that_ran_out_may_be_taken_over_and_the_stale_worker_cannot_record(impatient, rows, video):
    stale = claim(impatient(lease_seconds=0.0), ScanVideo, video.id, "stale")
    time.sleep(0.02)
    farm = impatient(lease_seconds=30.0)
    taken = claim(farm, ScanVideo, video.id, "taker")

    assert taken is not None and taken.attempt == 2
    assert not renew(farm, stale)
    with pytest.raises(LeaseLost):
        record_split_batches(farm, stale, [StoredBatch(0, 4, "crops/x")])
    with pytest.raises(LeaseLost):
        finish_split(farm, stale, {})
    assert rows.batches(video.scan_id) == []
    finish_split(farm, taken, {"frames_read": 1})


def test_the_same_worker_that_claims_a_row_again_does_not_revive_its_old_lease(impatient, video):
    old = claim(impatient(lease_seconds=0.0), ScanVideo, video.id, "worker")
    time.sleep(0.02)
    new = claim(impatient(), ScanVideo, video.id, "worker")

    assert not renew(impatient(), old)
    assert renew(impatient(), new)


def test_a_long_task_keeps_its_lease_while_it_works(impatient, video):
    farm = impatient(lease_seconds=0.3)
    lease = claim(farm, ScanVideo, video.id, "slow")
    with Hold(farm, lease) as hold:
        time.sleep(0.8)
        hold.check()
        assert claim(farm, ScanVideo, video.id, "other") is None


def test_a_task_learns_that_its_lease_was_lost(impatient, farm, video):
    short = impatient(lease_seconds=0.3)
    lease = claim(short, ScanVideo, video.id, "slow")
    with Hold(short, lease) as hold:
        release_worker(farm, "slow#", refund=False)
        time.sleep(0.4)
        with pytest.raises(LeaseLost):
            hold.check()


def test_a_failed_attempt_is_tried_again_after_a_pause_that_grows(impatient, reread, video):
    farm = impatient(retry_seconds=1000.0)
    state = fail(farm, claim(farm, ScanVideo, video.id, "w"), StorageAway("the disk is full"))

    row = reread()
    assert state == row.state == WorkState.READY
    assert row.error == "the disk is full"
    assert row.ready_at == pytest.approx(time.time() + 1000, abs=60)
    assert claim(farm, ScanVideo, video.id, "w") is None, "not before the pause is over"


def test_a_row_that_fails_every_time_is_failed_after_its_last_attempt_and_shows_why(farm, reread, rows, video):
    for attempt in (1, 2, 3):
        time.sleep(0.05)
        lease = claim(farm, ScanVideo, video.id, "w")
        assert lease is not None and lease.attempt == attempt
        fail(farm, lease, StorageAway("the storage is away"))

    row = reread()
    assert row.state == WorkState.FAILED
    assert row.error == "the storage is away (given up after 3 attempts)"
    assert row.verdict == "UNREADABLE" and row.error[1:] in row.reasons[0]
    assert claim(farm, ScanVideo, video.id, "w") is None
    assert rows.scan(video.scan_id).state == "done", "a poisoned row does not keep its scan open"


def test_a_fatal_error_is_not_tried_again(farm, reread, video):
    assert fail(farm, claim(farm, ScanVideo, video.id, "w"), BadInput("no such sampling")) == WorkState.FAILED
    assert reread().attempts == 1


def test_an_unreadable_video_is_a_result_and_no_failure(farm, reread, rows, video):
    fail(farm, claim(farm, ScanVideo, video.id, "w"), BadVideo("the file is empty"))

    row = reread()
    assert (row.state, row.verdict) == (WorkState.DONE, "UNREADABLE") and "he file is empty" in row.reasons[0]
    scan = rows.scan(video.scan_id)
    assert (scan.state, scan.videos_done, scan.videos_unreadable) == ("done", 1, 1)


def test_a_missing_engine_is_tried_again_since_another_machine_may_have_it(farm, rows, video):
    rows.split(video, batches=1)
    batch = rows.batches(video.scan_id)[0]

    assert fail(farm, claim(farm, CropBatchRow, batch.id, "w"), EngineMissing("no card here")) == WorkState.READY


def test_an_error_without_words_of_ours_names_its_kind(farm, reread, video):
    fail(farm, claim(farm, ScanVideo, video.id, "w"), ZeroDivisionError("1\x00/0"))

    assert reread().error == "ZeroDivisionError: 1\\0/0"


def test_a_row_whose_worker_died_at_its_last_attempt_is_failed_by_the_dispatcher(impatient, reread, video):
    farm = impatient(lease_seconds=0.0, max_attempts=2)
    for _ in range(2):
        assert claim(farm, ScanVideo, video.id, "dies") is not None
        time.sleep(0.02)

    assert claim(farm, ScanVideo, video.id, "next") is None
    assert bury_abandoned(farm) == 1
    assert bury_abandoned(farm) == 0
    row = reread()
    assert (row.state, row.verdict) == (WorkState.FAILED, "UNREADABLE")
    assert row.error == "the worker that read this video died (given up after 2 attempts)"


def test_a_released_row_counts_no_attempt(farm, reread, video):
    lease = claim(farm, ScanVideo, video.id, "w")

    assert release(farm, lease)
    assert not release(farm, lease)
    assert (reread().state, reread().attempts) == (WorkState.READY, 0)


def test_rows_of_a_dead_worker_are_freed_and_no_others(farm, rows, tmp_path):
    videos = rows.videos(rows.submit(tmp_path / "in", {"a.mp4": b"a", "b.mp4": b"b"}))
    claim(farm, ScanVideo, videos[0].id, "cpu-0@host/1")
    claim(farm, ScanVideo, videos[1].id, "cpu-01@host/2")

    assert release_worker(farm, "cpu-0@host/", refund=False) == 1
    states = [(video.state, video.attempts) for video in rows.videos(videos[0].scan_id)]
    assert states == [("ready", 1), ("leased", 1)]


def test_a_database_that_is_away_is_said_so_and_no_lease_is_given(farm, video, monkeypatch):
    from sqlalchemy import exc

    def refuse(*_args, **_options):
        raise exc.OperationalError("UPDATE", {}, OSError("gone"))

    monkeypatch.setattr("sqlalchemy.Connection.execute", refuse)
    with pytest.raises(DatabaseAway):
        claim(farm, ScanVideo, video.id, "w")
