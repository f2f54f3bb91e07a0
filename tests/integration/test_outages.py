"""SQL or storage gone for a moment, under the workers' own code: waited out or tried again, and done once."""

from __future__ import annotations

import threading
import time
from functools import partial

import psycopg
import pytest
from farm_rows import Rows
from sqlalchemy import make_url

from farm.db.models import CropBatchRow, ScanVideo
from farm.errors import BadVideo, DatabaseAway, StorageAway
from farm.jobs.cancel import cancel
from farm.jobs.dispatch import Dispatcher
from farm.queue import Doorbell, make_app
from farm.samples import write_samples
from farm.split import Recipe
from workers.attempt import DROPPED, LOST, attempt, patiently
from workers.resources import Detectors, Engines, Process
from workers.scorer import score_batch
from workers.splitter import split_video

POSTGRESQL = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
"""A SQLite file does not go away while its disk is there."""


@pytest.fixture
def process(farm):
    """What a worker process holds open."""
    engines = Engines(farm)
    yield Process(farm, engines, Detectors())
    engines.close()


@pytest.fixture
def batch(rows, tmp_path):
    """The one batch of a video that is split."""
    scan_id = rows.submit(tmp_path / "in", {"one.mp4": b"one"})
    rows.split(rows.videos(scan_id)[0], batches=1)
    return rows.batches(scan_id)[0]


@pytest.fixture
def outage(farm):
    """Puts PostgreSQL out of reach inside a `with` block: no connection survives, and no new one is let in."""
    return partial(Outage, farm.settings.database_url)


class Outage:
    def __init__(self, url):
        self.where = make_url(url)
        self.address = {"host": self.where.query["host"], "user": "postgres", "dbname": "postgres"}

    def allow(self, allowed):
        with psycopg.connect(**self.address, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {self.where.database} ALLOW_CONNECTIONS {allowed}")
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [self.where.database]
            )

    def __enter__(self):
        self.allow(False)

    def __exit__(self, *_):
        self.allow(True)


def scoring(process, batch):
    return attempt(process.farm, CropBatchRow, batch.id, "card", partial(score_batch, process))


def test_a_batch_is_scored_with_its_masks_and_what_scored_it(farm, process, rows, batch):
    assert scoring(process, batch).startswith("4 crops in")

    done = rows.batches(batch.scan_id)[0]
    assert done.mask_key == f"masks/{done.scan_id}/{done.scan_video_id}/000000/test-net-1"
    assert farm.store.exists(done.mask_key)
    assert done.scored_by["engine"] == "simulated" and done.scored_by["seconds"] > 0
    assert scoring(process, batch) == DROPPED, "a doubled message"


@POSTGRESQL
def test_sql_that_is_gone_while_a_batch_is_computed_gets_its_scores_once_it_is_back(
    process, rows, batch, outage, monkeypatch
):
    away = outage()
    opened = process.engines.open("simulated", rows.scan(batch.scan_id).model_id)
    predict, told = opened.engine.predict, []

    def predict_while_sql_goes(pixels):
        away.__enter__()
        return predict(pixels)

    monkeypatch.setattr(opened.engine, "predict", predict_while_sql_goes)
    worker = threading.Thread(target=lambda: told.append(scoring(process, batch)))
    worker.start()
    time.sleep(1.0)
    assert worker.is_alive(), "it waits"
    away.__exit__()
    worker.join(20)

    assert told and told[0].startswith("4 crops in")
    assert (rows.scan(batch.scan_id).state, rows.scan(batch.scan_id).crops_done) == ("done", 4)


@POSTGRESQL
def test_a_claim_waits_for_sql_no_longer_than_a_lease_lasts(impatient, batch, outage):
    farm = impatient(lease_seconds=0.5)
    with outage(), pytest.raises(DatabaseAway, match="did not answer"):
        attempt(farm, CropBatchRow, batch.id, "card", lambda _lease, _hold: "never")


def test_a_step_that_failed_for_want_of_sql_is_taken_again(farm):
    answers = iter([DatabaseAway("gone"), DatabaseAway("gone"), "done"])

    def step():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert patiently(farm, step) == "done"


@POSTGRESQL
def test_the_dispatcher_goes_on_after_an_outage_of_sql(farm, rows, redis_server, outage, batch):
    doorbell = Doorbell(make_app(redis_server.url))
    dispatcher = Dispatcher(farm, doorbell)
    thread = threading.Thread(target=dispatcher.run)
    with outage():
        thread.start()
        time.sleep(0.5)
        assert thread.is_alive() and doorbell.count()["infer.simulated"] == 0
    deadline = time.monotonic() + 20
    while doorbell.count()["infer.simulated"] == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    dispatcher.stop()
    thread.join()

    assert doorbell.count()["infer.simulated"] == 1
    doorbell.close()


def test_storage_that_is_away_is_tried_again_and_said_meanwhile(farm, process, rows, batch, tmp_path):
    process.engines.open("simulated", rows.scan(batch.scan_id).model_id)
    (tmp_path / "objects").rename(tmp_path / "gone")
    said = scoring(process, batch)
    waiting = rows.batches(batch.scan_id)[0]
    assert (waiting.state, waiting.attempts) == ("ready", 1), said
    assert "storage" in waiting.error

    (tmp_path / "gone").rename(tmp_path / "objects")
    time.sleep(0.1)
    assert scoring(process, batch).startswith("4 crops in")
    assert rows.batches(batch.scan_id)[0].error is None


def test_a_full_disk_fails_a_split_with_its_reason_once_attempts_are_used_up(
    farm, process, rows, tmp_path, monkeypatch
):
    clip = next(path for path in write_samples(tmp_path) if path.stem == "portrait")
    scan_id = rows.submit(tmp_path / "in", {"portrait.mp4": clip.read_bytes()})
    video = rows.videos(scan_id)[0]

    def full(_self, _key, _data):
        raise StorageAway("the storage is full: No space left on device")

    monkeypatch.setattr(type(farm.store), "put_if_absent", full)
    for _ in range(3):
        attempt(farm, ScanVideo, video.id, "splitter", partial(split_video, process, tell=print))
        time.sleep(0.1)

    failed = rows.videos(scan_id)[0]
    assert (failed.state, failed.verdict) == ("failed", "UNREADABLE")
    assert failed.error == "the storage is full: No space left on device (given up after 3 attempts)"


def test_an_unreadable_file_is_named_as_a_reader_knows_it(process, rows, tmp_path):
    scan_id = rows.submit(tmp_path / "in", {"text.mp4": b"this is no video\n" * 100}, recipe=Recipe())
    video = rows.videos(scan_id)[0]
    attempt(process.farm, ScanVideo, video.id, "splitter", partial(split_video, process, tell=print))

    decided = rows.videos(scan_id)[0]
    assert (decided.state, decided.verdict) == ("done", "UNREADABLE")
    assert "this file is no video file" in decided.error
    assert not any(len(word) == 64 for word in decided.error.split()), "no hash"


def test_a_task_whose_row_is_cancelled_meanwhile_stores_nothing(farm, process, rows, batch, monkeypatch):
    opened = process.engines.open("simulated", rows.scan(batch.scan_id).model_id)
    predict = opened.engine.predict
    monkeypatch.setattr(opened.engine, "predict", lambda pixels: (cancel(farm, batch.scan_id), predict(pixels))[1])

    assert scoring(process, batch) == LOST
    assert rows.batches(batch.scan_id)[0].state == "cancelled"
    assert Rows(farm).scan(batch.scan_id).crops_done == 0


def test_a_defect_in_a_body_is_kept_with_the_row(farm, rows, batch, caplog):
    def broken(_lease, _hold):
        raise KeyError("oops")

    attempt(farm, CropBatchRow, batch.id, "card", broken)
    assert rows.batches(batch.scan_id)[0].error == "KeyError: 'oops'"
    assert any(record.levelname == "ERROR" for record in caplog.records), "a defect is logged with its traceback"
    caplog.clear()


def test_an_unreadable_video_is_no_error_in_the_log(farm, rows, tmp_path, caplog):
    video = rows.videos(rows.submit(tmp_path / "x", {"a.mp4": b"a"}))[0]

    def unreadable(_lease, _hold):
        raise BadVideo("the file is empty")

    attempt(farm, ScanVideo, video.id, "splitter", unreadable)
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
