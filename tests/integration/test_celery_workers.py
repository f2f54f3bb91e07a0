"""Workers as a rack starts them, `celery -A workers.app worker`, on PostgreSQL and Redis."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from farm_rows import Rows

from farm.jobs.dispatch import Dispatcher
from farm.jobs.progress import wait
from farm.jobs.recipe import recipe_of
from farm.jobs.sources import Source
from farm.jobs.submit import submit
from farm.queue import INFER_TASK, SPLIT_QUEUE, SPLIT_TASK, Doorbell, Ring, infer_queue, make_app
from farm.samples import write_samples

INFER_QUEUE = infer_queue("simulated")
pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def portrait(tmp_path_factory):
    """One sample clip with a face."""
    return next(path for path in write_samples(tmp_path_factory.mktemp("clips")) if path.stem == "portrait")


@pytest.fixture
def rack(impatient, redis_server, tmp_path):
    """Starts workers by Celery's own command beside a running dispatcher; yields farm, doorbell and the workers' log."""

    @contextmanager
    def running(**settings):
        farm = impatient(redis_url=redis_server.url, **settings)
        plain = {
            f"FARM_{name.upper()}": str(value) for name, value in farm.settings.model_dump(exclude_none=True).items()
        }
        doorbell = Doorbell(make_app(redis_server.url))
        dispatcher = Dispatcher(farm, doorbell)
        thread = threading.Thread(target=dispatcher.run)
        thread.start()
        log = tmp_path / "workers.log"
        workers = [
            start(plain, log, "-Q", SPLIT_QUEUE, "-c", "1", "-n", "split@test"),
            start(plain, log, "-Q", INFER_QUEUE, "-P", "threads", "-c", "2", "-n", "card-0@test"),
        ]
        try:
            yield farm, doorbell, log
        finally:
            for worker in workers:
                worker.terminate()
            codes = [worker.wait(30) for worker in workers]
            dispatcher.stop()
            thread.join()
            doorbell.close()
        assert codes == [0, 0], log.read_text()[-3000:]

    return running


def start(plain, log, *options):
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "celery",
        "-A",
        "workers.app",
        "worker",
        "-E",
        "-l",
        "INFO",
        *options,
    ]
    with log.open("ab") as out:
        secret = {"FARM_FLOWER_PASSWORD": ""}
        return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **plain, **secret}, stdout=out, stderr=out)


def test_a_clip_is_scanned_and_doubled_messages_change_nothing(rack, portrait, rows):
    with rack() as (farm, doorbell, log):
        scan_id = submit(farm, [Source(str(portrait), "portrait.mp4")], recipe=recipe_of(farm))
        wait(farm, scan_id)
        before = rows.effect(scan_id)
        [video], batches = rows.videos(scan_id), rows.batches(scan_id)
        # on a slow machine the dispatcher has rung some rows twice already
        dropped = log.read_text().count("dropped")
        doorbell.ring([Ring(SPLIT_TASK, SPLIT_QUEUE, video.id, 6, "again")] * 2)
        doorbell.ring([Ring(INFER_TASK, INFER_QUEUE, batch.id, 6, "again") for batch in batches])
        until(lambda: log.read_text().count("dropped") >= dropped + 2 + len(batches))
        until(lambda: not any(doorbell.count().values()))

    assert rows.effect(scan_id) == before
    assert before["scan"]["state"] == "done" and before["scan"]["crops_done"] > 0
    assert batches[0].scored_by["device"].startswith("simulated")


def test_a_video_that_takes_too_long_is_unreadable_and_says_so(rack, portrait, rows):
    slow = {"sampling": "all", "detector_side_px": 1600}
    with rack(split_time_limit_seconds=1, **slow) as (farm, _doorbell, _log):
        scan_id = submit(farm, [Source(str(portrait), "portrait.mp4")], recipe=recipe_of(farm))
        wait(farm, scan_id)

    video = Rows(farm).videos(scan_id)[0]
    assert (video.state, video.verdict) == ("done", "UNREADABLE")
    assert "took longer than the limit of 1 s" in video.error


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)
