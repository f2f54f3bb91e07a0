"""Flower on a farm at work: its workers, its tasks with arguments a person can read, and how far they are."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from command_line import FARM, wait_for

from farm.embedded import EmbeddedFarm
from farm.jobs.recipe import recipe_of
from farm.jobs.sources import expand
from farm.jobs.submit import submit
from farm.samples import write_samples

PASSWORD = "for this test alone"


@dataclass
class Flower:
    """A running Flower."""

    url: str
    seen: list[dict[str, Any]] = field(default_factory=list)

    def get(self, path: str, password: str | None = PASSWORD) -> str:
        request = urllib.request.Request(self.url + path)
        if password is not None:
            secret = base64.b64encode(f"farm:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {secret}")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.read().decode()

    def tasks(self) -> dict[str, dict[str, Any]]:
        return json.loads(self.get("/api/tasks"))

    def status(self, path: str, password: str | None) -> int:
        try:
            self.get(path, password)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        return 200


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def flower_of(tmp_path: Path) -> Iterator[Callable[..., Flower]]:
    """Starts `farm flower` on the farm of a home."""
    started: list[subprocess.Popen[bytes]] = []

    def start(home: Path, password: str = PASSWORD) -> Flower:
        port = free_port()
        command = [*FARM, "flower", "--home", str(home), "--port", str(port)]
        with (tmp_path / "flower.log").open("wb") as log:
            environment = {**os.environ, "FARM_FLOWER_PASSWORD": password}
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path))
        flower = Flower(f"http://127.0.0.1:{port}")

        def answers() -> bool:
            assert started[-1].poll() is None, (tmp_path / "flower.log").read_text()
            try:
                return flower.get("/healthcheck", None) == "OK"
            except OSError:
                return False

        wait_for(answers)
        return flower

    yield start
    for process in started:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (clip,) = (path for path in write_samples(tmp_path_factory.mktemp("clips")) if path.stem == "two_faces")
    return clip


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedFarm]:
    """A farm that looks at every frame: a split of seconds, which tells several times how far it is."""
    slow = {"engine": "simulated", "simulated_crops_per_second": 500.0, "sampling": "all", "batch_crops": 32}
    with EmbeddedFarm(tmp_path_factory.mktemp("farm"), events=True, **slow) as farm:
        yield farm


def test_flower_shows_workers_readable_tasks_and_live_progress(
    embedded: EmbeddedFarm, clip: Path, flower_of: Callable[..., Flower]
) -> None:
    flower = flower_of(embedded.home)
    wait_for(lambda: len(json.loads(flower.get("/api/workers?refresh=1"))) >= 2)
    scan_id = submit(embedded.farm, expand([clip]), recipe=recipe_of(embedded.farm))
    embedded.submitted()

    def watched() -> bool:
        flower.seen += flower.tasks().values()
        return any(task["state"] == "PROGRESS" for task in flower.seen)

    wait_for(watched)
    embedded.wait(scan_id)
    wait_for(lambda: all(task["state"] == "SUCCESS" for task in flower.tasks().values()))
    workers, tasks = json.loads(flower.get("/api/workers")), flower.tasks().values()
    page = flower.get("/tasks") + flower.get("/workers")
    queues = flower.get("/broker")

    assert {name.partition("@")[0].partition("-")[0] for name in workers} == {"split", "cpu"}
    assert {task["name"] for task in tasks} == {"farm.split", "farm.infer"}
    (split,) = (task for task in tasks if task["name"] == "farm.split")
    assert split["args"] == f"('two_faces.mp4', scan {scan_id})"
    assert "frames" in split["result"] and "crops" in split["result"]
    others = [task["args"] for task in tasks if task is not split]
    assert all("two_faces.mp4" in shown and f"scan {scan_id}, batch " in shown for shown in others)
    told = [task["result"] for task in flower.seen if task["state"] == "PROGRESS"]
    assert any(re.fullmatch(r"\d+/\d+ frames of two_faces.mp4", line) for line in told), told
    assert "<table" in page and "split" in queues and "infer" in queues


def test_flower_asks_for_the_password(embedded: EmbeddedFarm, flower_of: Callable[..., Flower]) -> None:
    flower = flower_of(embedded.home)
    assert [flower.status("/workers", password) for password in (None, "wrong", PASSWORD)] == [401, 401, 200]


def test_without_a_password_flower_only_shows(embedded: EmbeddedFarm, flower_of: Callable[..., Flower]) -> None:
    flower = flower_of(embedded.home, password="")
    assert flower.status("/workers", None) == 200
    request = urllib.request.Request(flower.url + "/api/worker/shutdown/x", data=b"")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=20)
    refused.value.close()
    assert refused.value.code in (401, 403, 405)
