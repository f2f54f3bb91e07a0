"""A whole embedded farm on real clips, while its parts are killed: what is stored in the end is what an undisturbed run stores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis
from farm_rows import Rows

from farm.db.models import Video
from farm.embedded import EmbeddedFarm, embedded_settings
from farm.errors import BadInput, FarmError
from farm.farm import Farm
from farm.jobs.progress import unfinished
from farm.jobs.recipe import recipe_of
from farm.jobs.sources import expand
from farm.jobs.submit import submit
from farm.samples import write_samples
from farm.split import Recipe

MANY_BATCHES = {"sampling": "every:5", "batch_crops": 2}
"""Many small pieces of work from short clips, so that there is a middle to be killed in."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two of the project's own sample clips, and an empty file."""
    folder = tmp_path_factory.mktemp("clips")
    for path in write_samples(folder):
        if path.stem not in ("portrait", "two_faces"):
            path.unlink()
    (folder / "empty.mp4").write_bytes(b"")
    return folder


@pytest.fixture
def start(tmp_path):
    """Starts an embedded farm that takes about a second for its batches."""

    def start(home=None, **settings):
        chosen = {"engine": "simulated", "simulated_crops_per_second": 30.0, "lease_seconds": 3.0, "retry_seconds": 0.2}
        return EmbeddedFarm(home or tmp_path / "home", split_workers=2, **{**chosen, **MANY_BATCHES, **settings})

    return start


@pytest.fixture(scope="module")
def calm(clips, tmp_path_factory):
    """What an undisturbed farm leaves behind."""
    settings = {"engine": "simulated", "simulated_crops_per_second": 5000.0, **MANY_BATCHES}
    with EmbeddedFarm(tmp_path_factory.mktemp("calm"), **settings) as embedded:
        scan_id = send(embedded, clips)
        embedded.wait(scan_id)
        return Rows(embedded.farm).effect(scan_id)


def send(embedded, clips):
    scan_id = submit(embedded.farm, expand([clips]), recipe=recipe_of(embedded.farm))
    embedded.submitted()
    return scan_id


def processes(of=None):
    """Pid by name of all descendants, grandchildren last; several of one name in order of age."""
    found: dict[str, list[int]] = {}
    for pid in descendants(of or os.getpid()):
        found.setdefault((Path("/proc") / str(pid) / "comm").read_text().strip(), []).append(pid)
    return found


def descendants(pid):
    children = [
        int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()
    ]
    return children + [grandchild for child in children for grandchild in descendants(child)]


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def in_the_middle(embedded, scan_id):
    """Wait until crops were scored while others still wait."""
    rows = Rows(embedded.farm)
    until(lambda: rows.scan(scan_id).crops_done >= 4)
    assert rows.scan(scan_id).state == "active"
    return rows


def kill(name, which=0):
    os.kill(processes()[name][which], signal.SIGKILL)


def split_child():
    """A pool process of the split worker, not the worker itself."""
    kill("farm-split", -1)


def killed(name):
    return lambda _embedded: kill(name)


def redis_killed(embedded):
    """The farm's own Redis, not the one that other tests share."""
    os.kill(embedded.pids()["redis"], signal.SIGKILL)


def flushed(embedded):
    with redis.Redis(unix_socket_path=embedded.settings.redis_url.removeprefix("redis+socket://")) as client:
        client.flushall()


@pytest.mark.parametrize(
    "disturb",
    [
        pytest.param(killed("farm-infer"), id="an infer worker is killed"),
        pytest.param(killed("farm-split"), id="the split worker is killed"),
        pytest.param(lambda _embedded: split_child(), id="a split worker's child is killed over its video"),
        pytest.param(killed("farm-dispatch"), id="the dispatcher is killed"),
        pytest.param(redis_killed, id="redis is killed"),
        pytest.param(flushed, id="redis is flushed"),
    ],
)
def test_nothing_is_lost_and_nothing_doubled_when(disturb, start, clips, calm):
    with start() as embedded:
        scan_id = send(embedded, clips)
        rows = in_the_middle(embedded, scan_id)
        disturb(embedded)
        embedded.wait(scan_id)
        assert rows.effect(scan_id) == calm


def test_every_part_of_a_farm_dies_with_a_parent_killed_by_force_and_the_next_farm_goes_on(
    tmp_path, clips, calm, start
):
    home = tmp_path / "home"
    script = f"""
from pathlib import Path
from farm.embedded import EmbeddedFarm
from farm.jobs.recipe import recipe_of
from farm.jobs.sources import expand
from farm.jobs.submit import submit

settings = {{"engine": "simulated", "simulated_crops_per_second": 30.0, **{MANY_BATCHES!r}}}
with EmbeddedFarm(Path({str(home)!r}), **settings) as embedded:
    embedded.wait(submit(embedded.farm, expand([{str(clips)!r}]), recipe=recipe_of(embedded.farm)))
"""
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    reader = None
    try:
        until((home / "farm.db").exists)
        until(lambda: "farm-infer" in processes(parent.pid))
        reader = Farm.open(embedded_settings(home))
        until(lambda: unfinished(reader) and Rows(reader).scan(unfinished(reader)[0]).crops_done >= 4)
        family = descendants(parent.pid)
    finally:
        parent.kill()
        parent.wait()
    assert len(family) >= 6
    until(lambda: not any(alive(pid) for pid in family), seconds=5)

    [scan_id] = unfinished(reader)
    reader.close()
    with start(home, simulated_crops_per_second=5000.0) as embedded:
        embedded.wait(scan_id)
        assert Rows(embedded.farm).effect(scan_id) == calm


def alive(pid):
    """A zombie that nobody reaped yet is dead."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_farm_that_is_stopped_in_the_middle_leaves_no_process_and_counts_no_attempt(start, clips, tmp_path):
    before = set(descendants(os.getpid()))
    with start() as embedded:
        scan_id = send(embedded, clips)
        in_the_middle(embedded, scan_id)
    assert set(descendants(os.getpid())) <= before

    farm = Farm.open(embedded_settings(tmp_path / "home"))
    rows = Rows(farm)
    work = [*rows.videos(scan_id), *rows.batches(scan_id)]
    assert {row.state for row in work} <= {"ready", "done"}
    assert all(row.attempts == 0 for row in work if row.state == "ready")
    farm.close()


def test_a_video_that_crashes_its_decoder_fails_alone_with_its_reason(start, clips, tmp_path):
    """The poison: whoever reads this one video is killed, each time."""
    with start(max_attempts=2, lease_seconds=60.0) as embedded:
        until(lambda: "farm-split" in processes())
        scan_id = send(embedded, clips)
        rows = Rows(embedded.farm)
        victim = max(rows.videos(scan_id), key=lambda video: len(embedded.farm.store.get(key_of(embedded.farm, video))))
        deadline = time.monotonic() + 90
        while rows.scan(scan_id).state != "done" and time.monotonic() < deadline:
            row = next(video for video in rows.videos(scan_id) if video.id == victim.id)
            if row.state == "leased":
                os.kill(holder_of(row), signal.SIGKILL)
                until(lambda row=row: owner(rows, scan_id, victim.id) != row.lease_owner)
            time.sleep(0.005)
        poisoned = next(video for video in rows.videos(scan_id) if video.id == victim.id)
        others = [video for video in rows.videos(scan_id) if video.id != victim.id]

    assert (poisoned.state, poisoned.verdict) == ("failed", "UNREADABLE")
    assert "died" in poisoned.error and "given up after 2 attempts" in poisoned.error
    assert all(video.state == "done" for video in others)
    assert sum(video.verdict == "UNREADABLE" for video in others) >= 1, "the empty file"


def key_of(farm, video):
    with farm.sessions() as session:
        return session.get_one(Video, video.video_id).object_key


def owner(rows, scan_id, row_id):
    return next(video.lease_owner for video in rows.videos(scan_id) if video.id == row_id)


def holder_of(row):
    """The pool process that works on this row: its lease says which."""
    return int(row.lease_owner.rpartition("#")[0].rpartition(":")[2])


def test_a_second_farm_at_the_same_home_is_refused_with_who_holds_it(start):
    with start(), pytest.raises(BadInput, match=rf"is running already \(pid {os.getpid()}\)"), start():
        pass


def test_a_home_whose_path_is_too_long_for_a_socket_works(tmp_path, clips, start):
    home = tmp_path / ("x" * 120)
    with start(home, simulated_crops_per_second=5000.0) as embedded:
        scan_id = submit(embedded.farm, expand([clips / "empty.mp4"]), recipe=Recipe())
        assert embedded.wait(scan_id).videos_done == 1


def test_an_engine_that_is_not_here_is_said_at_once(start, clips):
    with start(engine="vart") as embedded:
        scan_id = send(embedded, clips)
        with pytest.raises(FarmError, match=r"worker cannot start: .* is no xmodel"):
            embedded.wait(scan_id)
