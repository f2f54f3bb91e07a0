"""Real workers of real processes on cards that are not there: who draws what, who is drained, quarantined, lost and found.

The tests' figures stand at the end of pytest's output.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from card_stand_in import FOLDER, known_network, write_xmodel
from farm_rows import Rows

from farm.db.models import CardState
from farm.embedded import EXIT_CANNOT_START, EmbeddedFarm
from farm.errors import EngineMissing
from farm.jobs import cards
from farm.jobs.dispatch import Dispatcher
from farm.jobs.models import register_model
from farm.jobs.progress import wait
from farm.queue import Doorbell, infer_queue, make_app
from workers.resources import Engines

ROOT = Path(__file__).parents[2]
CARD, OTHER = "0000:3b:00.1", "0000:5e:00.1"
BEAT_SECONDS = 0.2
DEADLINE_SECONDS = 2.0
"""Of a job on the card: silence for so long counts as a hang."""
OBEYED_WITHIN_SECONDS = 5.0
"""For a beat and what is under way; on an idle machine it takes a tenth of this."""


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """What cards do in SQL is tested on either database in jobs/test_cards.py."""
    return f"sqlite:///{tmp_path / 'farm.db'}"


class Rack:
    """A farm with a running dispatcher, and the processes started on it."""

    def __init__(self, farm, folder: Path, stack: ExitStack) -> None:
        self.farm, self.rows, self._stack = farm, Rows(farm), stack
        self.log = folder / "workers.log"
        self._folder = folder
        self.doorbell = Doorbell(make_app(farm.settings.redis_url))
        dispatcher = Dispatcher(farm, self.doorbell)
        thread = threading.Thread(target=dispatcher.run)
        thread.start()
        stack.callback(self.doorbell.close)
        stack.callback(thread.join)
        stack.callback(dispatcher.stop)

    def scan(self, batches: int, name: str = "one", **options) -> int:
        """A scan whose batches of 8 crops wait."""
        scan_id = self.rows.submit(self._folder / "in", {f"{name}.mp4": name.encode()}, **options)
        self.rows.split(self.rows.videos(scan_id)[0], batches=batches, crops=8)
        return scan_id

    def start(self, *command: str, **settings) -> subprocess.Popen:
        """Run `python -m ...` with the farm's settings; killed after the test if it is still there."""
        chosen = self.farm.settings.model_copy(update=settings).model_dump(exclude_none=True)
        plain = {f"FARM_{name.upper()}": str(value) for name, value in chosen.items()} | {"FARM_FLOWER_PASSWORD": ""}
        with self.log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", *command],
                cwd=ROOT,
                env={**os.environ, **plain},
                stdout=out,
                stderr=out,
            )
        self._stack.callback(process.wait, 30)
        self._stack.callback(process.kill)
        return process

    def state(self, bdf: str) -> str | None:
        return next((card.state for card in cards.list_cards(self.farm) if card.bdf == bdf), None)

    def card(self, bdf: str) -> cards.CardStatus:
        return next(card for card in cards.list_cards(self.farm) if card.bdf == bdf)

    def until(self, condition: Callable[[], object], seconds: float = 90.0) -> float:
        """Wait until it is so; how long that took."""
        started = time.monotonic()
        while not condition():
            assert time.monotonic() - started < seconds, (
                f"it did not come to pass; log:\n{self.log.read_text()[-3000:]}"
            )
            time.sleep(0.02)
        return time.monotonic() - started

    def done(self, scan_id: int) -> int:
        return self.rows.scan(scan_id).crops_done

    def devices(self, scan_id: int) -> set[str]:
        """What scored the scan's batches."""
        return {
            f"{row.scored_by['engine']} {row.scored_by['device']}"
            for row in self.rows.batches(scan_id)
            if row.scored_by
        }

    def attempts(self, scan_id: int) -> set[tuple[str, int]]:
        return {(row.state, row.attempts) for row in self.rows.batches(scan_id)}


@pytest.fixture
def rack(impatient, redis_server, tmp_path, stand_in_host):
    """Makes a rack under these settings."""

    @contextmanager
    def running(**settings):
        quick = {
            "card_beat_seconds": BEAT_SECONDS,
            "card_sample_seconds": 0.3,
            "card_scan_seconds": 0.3,
            "lease_seconds": 60.0,
        }
        farm = impatient(**{"redis_url": redis_server.url, **stand_in_host.settings, **quick, **settings})
        with ExitStack() as stack:
            yield Rack(farm, tmp_path, stack)

    return running


def test_a_cpu_worker_leaves_a_cards_batches_and_a_drained_or_hot_card_leaves_them_too(
    rack, stand_in_host, say
) -> None:
    stand_in_host.plug(serial="XFL1")
    with rack(simulated_crops_per_second=80.0) as here:
        scan_id = here.scan(batches=60)
        cpu = here.start("workers.app", "infer", engine="onnx", model="")
        here.until(lambda: "ready" in here.log.read_text())
        here.until(lambda: here.doorbell.count()[infer_queue("simulated")] > 0)
        time.sleep(3 * BEAT_SECONDS)
        assert here.attempts(scan_id) == {("ready", 0)}

        worker = here.start("workers.app", "infer", "--card", "3b:00.0", "--engine", "simulated", card="")
        here.until(lambda: here.done(scan_id) > 0)
        cards.drain(here.farm, "XFL1" if here.card(CARD).serial else CARD, "new fans")
        obeyed = here.until(lambda: f"card {CARD} is drained" in here.log.read_text(), OBEYED_WITHIN_SECONDS)
        here.until(lambda: not {"leased"} & {state for state, _ in here.attempts(scan_id)}, OBEYED_WITHIN_SECONDS)
        before = here.done(scan_id)
        time.sleep(5 * BEAT_SECONDS)
        assert here.done(scan_id) == before < 480
        assert here.attempts(scan_id) == {("ready", 0), ("done", 1)}
        here.until(lambda: here.doorbell.count()[infer_queue("simulated")] > 0, OBEYED_WITHIN_SECONDS)

        cards.resume(here.farm, CARD)
        resumed = here.until(lambda: here.done(scan_id) > before)
        stand_in_host.plug(celsius="91", watts="N/A")
        hot = here.until(lambda: here.state(CARD) == CardState.HOT, OBEYED_WITHIN_SECONDS)
        here.until(lambda: f"card {CARD} is hot" in here.log.read_text(), OBEYED_WITHIN_SECONDS)
        stand_in_host.plug(celsius="80")
        here.until(lambda: here.card(CARD).celsius == 80.0)
        assert here.card(CARD).state == CardState.HOT
        stand_in_host.plug(celsius="60")
        wait(here.farm, scan_id)

        assert here.attempts(scan_id) == {("done", 1)}
        assert here.devices(scan_id) == {f"simulated {CARD}"}
        here.until(lambda: here.card(CARD).crops_done == 480, OBEYED_WITHIN_SECONDS)
        assert (here.card(CARD).serial, here.card(CARD).watts) == ("XFL1", None)
        assert here.card(CARD).worker.startswith(f"vck5000-{CARD}@")
        stand_in_host.pull()
        assert worker.wait(60) == EXIT_CANNOT_START
        assert f"worker cannot start: card {CARD} vanished from the PCI bus" in here.log.read_text()
        assert (here.card(CARD).state, here.card(CARD).worker) == (CardState.GONE, None)
        cpu.terminate()
        assert cpu.wait(30) == 0
        say(
            f"drained {obeyed:.2f} s after the word, at work again {resumed:.2f} s after it, hot seen after {hot:.2f} s; 60 batches once"
        )


@pytest.fixture
def vart(stand_in_card, stand_in_host, tmp_path) -> dict[str, object]:
    """Settings of workers that drive two stand-in cards."""
    stand_in_host.plug("0000:3b:00")
    stand_in_host.plug("0000:5e:00")
    weights, card = write_xmodel(tmp_path, known_network())
    weights.with_suffix(".json").write_text(card.to_json())
    options = stand_in_card.options()
    return {
        "engine": "vart",
        "model": str(weights.with_suffix(".json")),
        "vart_python": options.python,
        "vart_path": str(FOLDER),
        "vart_firmware": options.firmware,
        "vart_lock_folder": options.lock_folder,
        "vart_job_deadline_seconds": DEADLINE_SECONDS,
    }


def test_a_card_whose_process_dies_and_then_hangs_under_load_is_back_and_every_batch_is_scored_once(
    rack, vart, stand_in_card, say
) -> None:
    stand_in_card.behave(rate=150, lives=[{"die_at": 8}, {"hang_at": 8}, {}])
    with rack(**vart) as here:
        scan_id = here.scan(batches=24)
        here.start("workers.app", "infer", "--card", CARD)
        wait(here.farm, scan_id)
        starts = [entry["at"] for entry in stand_in_card.journal("start")]
        assert len(starts) == 3
        here.until(lambda: here.card(CARD).losses == 2, OBEYED_WITHIN_SECONDS)
        assert here.card(CARD).state == CardState.READY
        assert {state for state, _ in here.attempts(scan_id)} == {"done"}
        retried = sum(attempts > 1 for _, attempts in ((row.state, row.attempts) for row in here.rows.batches(scan_id)))
        assert retried <= 2 * 3
        effect = here.rows.effect(scan_id)
        assert len(effect["scores"]) == len(set(effect["scores"])) == effect["scan"]["crops_done"] == 192
        say(
            f"killed, then hung (deadline {DEADLINE_SECONDS} s) under load: open again {starts[1] - starts[0]:.1f} and "
            f"{starts[2] - starts[1]:.1f} s after the life before began; {retried} of 24 batches tried twice, none lost or doubled"
        )


def test_a_card_that_answers_wrongly_is_quarantined_and_costs_no_batch_an_attempt(
    rack, vart, stand_in_card, say
) -> None:
    with rack(**vart) as here:
        scan_id = here.scan(batches=30)
        stand_in_card.behave(rate=150, lives=[{"same_at": 6}, {}])
        here.start("workers.app", "infer", "--card", CARD)
        here.until(lambda: here.state(CARD) == CardState.QUARANTINED)
        left = 30 - sum(row.state == "done" for row in here.rows.batches(scan_id))
        quiet = here.until(
            lambda: not {"leased"} & {state for state, _ in here.attempts(scan_id)}, OBEYED_WITHIN_SECONDS
        )
        time.sleep(5 * BEAT_SECONDS)
        assert {(state, attempts) for state, attempts in here.attempts(scan_id)} == {("ready", 0), ("done", 1)}
        assert "in doubt" in here.card(CARD).reason and CARD in here.card(CARD).reason

        here.start("workers.app", "infer", "--card", OTHER)
        here.until(lambda: f"vart {OTHER}" in here.devices(scan_id))
        second = here.start("workers.app", "infer", "--card", OTHER, card_busy_seconds=0.0)
        assert second.wait(90) == EXIT_CANNOT_START
        assert re.search(rf"worker cannot start: card {OTHER} is already driven by process \d+", here.log.read_text())
        cards.drain(here.farm, OTHER, "its turn is over")
        cards.resume(here.farm, CARD)
        back = here.until(lambda: f"card {CARD} is ready: it takes work" in here.log.read_text())
        wait(here.farm, scan_id)

        assert here.attempts(scan_id) == {("done", 1)}
        assert here.devices(scan_id) == {f"vart {CARD}", f"vart {OTHER}"}
        assert here.rows.scan(scan_id).crops_done == 240
        say(
            f"wrong answer under load: quarantined with {left} of 30 batches left, rows given back in {quiet:.2f} s, "
            f"no attempt used; open again {back:.2f} s after `resume`; all 30 scored once"
        )


def test_a_card_takes_another_model_once_what_it_computes_is_done(farm, stand_in_card, vart_model) -> None:
    ids = []
    for version in ("1", "2"):
        weights, card = vart_model(version=version)
        weights.with_suffix(".json").write_text(card.to_json())
        ids.append(register_model(farm, weights.with_suffix(".json")))
    engines, pixels = Engines(farm), np.zeros((2, 224, 224, 3), np.uint8)
    swapped: list[str] = []

    def other() -> None:
        with engines.using("vart", ids[1]) as opened:
            swapped.append(opened.card.version)
            opened.engine.predict(pixels)

    with engines.using("vart", ids[0]) as opened:
        thread = threading.Thread(target=other)
        thread.start()
        time.sleep(0.2)
        assert not swapped
        opened.engine.predict(pixels)
    thread.join(60)
    with engines.using("vart", ids[0]) as opened:
        opened.engine.predict(pixels)
    engines.close()
    assert swapped == ["2"]
    assert len(stand_in_card.journal("start")) == len(stand_in_card.journal("end")) == 3


def test_an_embedded_scan_ends_with_the_reason_where_its_card_is_quarantined(
    vart, stand_in_card, tmp_path, card_path
) -> None:
    stand_in_card.behave(rate=150, lives=[{"same_at": 6}])
    home = tmp_path / "home"
    with EmbeddedFarm(home, split_workers=1, vart_device=CARD, **vart) as embedded:
        rows = Rows(embedded.farm)
        scan_id = rows.submit(tmp_path / "in", {"one.mp4": b"one"})
        rows.split(rows.videos(scan_id)[0], batches=20, crops=8)
        with pytest.raises(EngineMissing, match=f"card {CARD} is quarantined"):
            embedded.wait(scan_id)
    with EmbeddedFarm(home, split_workers=1, vart_device=CARD, **vart) as embedded:
        with pytest.raises(EngineMissing, match=f"card {CARD} is quarantined: see `farm cards list`"):
            embedded.wait(scan_id)
        assert {(row.state, row.attempts) for row in Rows(embedded.farm).batches(scan_id)} <= {
            ("done", 1),
            ("ready", 0),
        }


def test_every_card_has_a_worker_through_kills_pulls_and_plugs(rack, stand_in_host, say) -> None:
    stand_in_host.plug("0000:3b:00")
    with rack(simulated_crops_per_second=40.0, card_stop_seconds=20.0) as here:
        scan_id = here.scan(batches=90)
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        supervisor = here.start("workers.cards", "supervise", "--engine", "simulated", card="", metrics_port=port)
        here.until(lambda: here.done(scan_id) > 0)
        stand_in_host.plug("0000:5e:00")
        here.until(lambda: here.state(OTHER) == CardState.READY)

        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            told = answer.read().decode()
        assert all(re.search(rf'farm_card_worker_up{{bdf="{bdf}",.*}} 1.0', told) for bdf in (CARD, OTHER))

        first = pid_of(here, CARD)
        os.kill(first, signal.SIGKILL)
        back = here.until(lambda: pid_of(here, CARD) not in (first, None))
        stand_in_host.pull("0000:5e:00")
        ended = here.until(lambda: here.state(OTHER) == CardState.GONE and pid_of(here, OTHER) is None)
        assert f"card {OTHER} vanished from the PCI bus" in here.log.read_text()
        stand_in_host.plug("0000:5e:00")
        here.until(lambda: here.state(OTHER) == CardState.READY)
        wait(here.farm, scan_id)

        assert {state for state, _ in here.attempts(scan_id)} == {"done"}
        assert max(attempts for _, attempts in here.attempts(scan_id)) <= 2
        assert here.devices(scan_id) == {f"simulated {CARD}", f"simulated {OTHER}"}
        assert here.rows.scan(scan_id).crops_done == 720
        pids = [pid_of(here, CARD), pid_of(here, OTHER)]
        supervisor.terminate()
        assert supervisor.wait(30) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
        say(
            f"a killed worker was back after {back:.2f} s, a vanished card's ended after {ended:.2f} s; 90 batches, none lost or doubled"
        )


def pid_of(here: Rack, bdf: str) -> int | None:
    """The process that the supervisor started last for this card, while it lives."""
    started = [
        line.split()
        for line in here.log.read_text().splitlines()
        if f"card {bdf}: worker " in line and "started" in line
    ]
    pid = int(started[-1][-2]) if started else None
    return pid if pid and Path(f"/proc/{pid}").exists() else None
