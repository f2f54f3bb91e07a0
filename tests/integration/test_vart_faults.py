"""A card that dies, hangs or goes wrong while two threads load it: nothing lost, nothing doubled, back or quarantined in time.

The tests' figures stand at the end of pytest's output.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from card_stand_in import StandInCard, is_alive, known_network, write_xmodel

from farm.errors import CardQuarantined, EngineBusy
from workers.engines.vart import VartEngine

BATCHES, CROPS, THREADS = 12, 20, 2
DEADLINE_SECONDS = 1.0
BACK_WITHIN_SECONDS = 5.0
"""For the detection, a kill and a start of Python; on an idle machine it takes a tenth of this."""


def batch(number: int) -> np.ndarray:
    """Crops whose scores tell the batch and the row."""
    pixels = np.zeros((CROPS, 224, 224, 3), np.uint8)
    pixels[:] = (np.arange(CROPS) * 3 + number * 16)[:, None, None, None]
    pixels[:, :112, :, 0] = 255
    return pixels


def expected_logits(number: int) -> np.ndarray:
    """8 * (mean brightness - 0.5), to within what int8 can say."""
    level = (np.arange(CROPS) * 3 + number * 16).astype(float)
    return 8 * ((level * 5 / 6 + 255 / 6) / 255 - 0.5)


@dataclass
class Load:
    """What two threads got while they scored every batch, each until it was answered."""

    answers: dict[int, list[np.ndarray]] = field(default_factory=dict)
    refused: list[tuple[float, EngineBusy]] = field(default_factory=list)
    answered_at: list[float] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    started_at: float = 0.0

    def run(self, engine: VartEngine, during: Callable[[], None] = lambda: None) -> Load:
        """Score all batches; `during` is called once a few are done. Batches of a quarantined card are left."""
        waiting, lock = list(range(BATCHES)), threading.Lock()
        self.started_at = time.monotonic()

        def work() -> None:
            while True:
                with lock:
                    if not waiting:
                        return
                    number = waiting.pop(0)
                try:
                    scored = engine.predict(batch(number)).logits
                except EngineBusy as error:
                    with lock:
                        self.refused.append((time.monotonic(), error))
                        (self.left if isinstance(error, CardQuarantined) else waiting).append(number)
                else:
                    with lock:
                        self.answers.setdefault(number, []).append(scored)
                        self.answered_at.append(time.monotonic())

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        during()
        for thread in threads:
            thread.join()
        return self

    def wait_answers(self, count: int) -> None:
        while len(self.answered_at) < count:
            time.sleep(0.01)

    def check(self) -> None:
        """Every batch was answered rightly and once, or is left for another card."""
        assert sorted([*self.answers, *self.left]) == list(range(BATCHES))
        for number, answers in self.answers.items():
            assert len(answers) == 1
            np.testing.assert_allclose(answers[0], expected_logits(number), atol=0.08)

    def away_seconds(self) -> float:
        """From the first refusal to the next answer."""
        first = self.refused[0][0]
        return min(at for at in self.answered_at if at > first) - first


@pytest.fixture
def model(tmp_path: Path):
    return write_xmodel(tmp_path, known_network())


def test_a_killed_process_costs_its_calls_a_retry_and_no_crop(stand_in_card: StandInCard, model, say) -> None:
    stand_in_card.behave(rate=400)
    engine, load = stand_in_card.open(model), Load()
    first = engine.process_id

    def kill() -> None:
        load.wait_answers(3)
        os.kill(first, signal.SIGKILL)

    load.run(engine, kill).check()
    assert load.left == []
    assert 1 <= len(load.refused) <= THREADS
    assert all("died of SIGKILL" in str(error) and "restarted" in str(error) for _, error in load.refused)
    assert engine.process_id != first
    assert not is_alive(first)
    assert load.away_seconds() < BACK_WITHIN_SECONDS
    say(
        f"killed under load: {len(load.refused)} calls refused, next answer {load.away_seconds():.2f} s later, {BATCHES} batches right"
    )


def test_a_hanging_card_is_noticed_at_its_deadline_and_restarted(stand_in_card: StandInCard, model, say) -> None:
    stand_in_card.behave(rate=400, lives=[{"hang_at": 8}, {}])
    engine, load = stand_in_card.open(model, job_deadline_seconds=DEADLINE_SECONDS), Load()
    first = engine.process_id
    load.run(engine).check()
    assert load.left == []
    assert 1 <= len(load.refused) <= THREADS
    assert all("silent for" in str(error) for _, error in load.refused)
    assert not is_alive(first)
    noticed = load.refused[0][0] - max([load.started_at, *(at for at in load.answered_at if at < load.refused[0][0])])
    assert DEADLINE_SECONDS <= noticed < DEADLINE_SECONDS + BACK_WITHIN_SECONDS
    assert load.away_seconds() < BACK_WITHIN_SECONDS
    say(
        f"hang under load: noticed {noticed:.2f} s after the last answer (deadline {DEADLINE_SECONDS} s), "
        f"next answer {load.away_seconds():.2f} s later, {BATCHES} batches right"
    )


def test_a_card_that_answers_all_alike_is_quarantined_before_a_wrong_answer_leaves(
    stand_in_card: StandInCard, model, say
) -> None:
    stand_in_card.behave(rate=400, lives=[{"same_at": 14}])
    engine, load = stand_in_card.open(model), Load()
    load.run(engine).check()
    assert load.left
    assert all(isinstance(error, CardQuarantined) and "in doubt" in str(error) for _, error in load.refused)
    with pytest.raises(CardQuarantined, match="Reset the card"):
        engine.predict(batch(0))
    deadline = time.monotonic() + BACK_WITHIN_SECONDS
    while stand_in_card.live_processes() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert stand_in_card.live_processes() == []
    stand_in_card.behave()
    other = stand_in_card.open(model, device="0000:5e:00.0")
    for number in load.left:
        load.answers[number] = [other.predict(batch(number)).logits]
    answered, load.left = len(load.answers) - len(load.left), []
    load.check()
    say(
        f"wrong answers under load: quarantined after {answered} right batches, none wrong; the rest done by another card"
    )


def test_a_wrong_canary_answer_now_and_then_quarantines_too(stand_in_card: StandInCard, model, say) -> None:
    """One lane gone wrong shows only in the golden pictures: wrong answers are bounded by the canary's interval."""
    stand_in_card.behave(rate=400, lives=[{"lane_at": 9}])
    engine, load = stand_in_card.open(model, canary_jobs=6), Load()
    load.run(engine)
    assert load.left
    assert all("lanes [3] of 8" in str(error) for _, error in load.refused)
    wrong = [
        int((np.abs(answers[0] - expected_logits(number)) > 0.08).sum()) for number, answers in load.answers.items()
    ]
    assert 0 < sum(wrong) <= 6 + 4
    assert sorted([*load.answers, *load.left]) == list(range(BATCHES))
    say(
        f"one lane wrong under load: quarantined with {sum(wrong)} wrong crops of {len(load.answers) * CROPS} let through"
    )


def refusals(engine: VartEngine) -> Iterator[EngineBusy]:
    while True:
        try:
            engine.predict(batch(0))
        except EngineBusy as error:
            yield error


def test_a_card_that_vanishes_is_given_up_after_five_losses(stand_in_card: StandInCard, model, say) -> None:
    engine = stand_in_card.open(model)
    stand_in_card.behave(no_card=True)
    started = time.monotonic()
    os.kill(engine.process_id, signal.SIGKILL)
    given_up = next(error for error in refusals(engine) if isinstance(error, CardQuarantined))
    away = time.monotonic() - started
    assert re.search(r"lost 5 times within \d+ s.*no device found.*xbutil examine.*farm cards resume", str(given_up))
    assert engine.losses == 5
    assert away < 4 * BACK_WITHIN_SECONDS
    say(f"vanished: quarantined {away:.2f} s later, after {engine.losses} losses")


def test_a_card_that_hangs_again_and_again_is_quarantined_though_it_works_in_between(
    stand_in_card: StandInCard, model, say
) -> None:
    # a batch is three or four jobs, and two are on the way: one at least is answered before the twelfth job
    stand_in_card.behave(rate=400, lives=[{"hang_at": 12}])
    engine, load = stand_in_card.open(model, job_deadline_seconds=0.4, losses=3), Load()
    load.run(engine).check()
    assert load.left and load.answers
    assert engine.losses == 3
    assert "lost 3 times within" in str(load.refused[-1][1])
    say(
        f"hanging thrice: quarantined {time.monotonic() - load.started_at:.2f} s after the first batch, "
        f"{len(load.answers)} right, {len(load.left)} left"
    )


def test_an_idle_card_whose_process_dies_is_ready_again_for_the_next_call(stand_in_card: StandInCard, model) -> None:
    engine = stand_in_card.open(model)
    for _ in range(3):
        os.kill(engine.process_id, signal.SIGKILL)
        deadline = time.monotonic() + BACK_WITHIN_SECONDS
        while engine.losses == len(stand_in_card.journal("start")) - 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        np.testing.assert_allclose(engine.predict(batch(2)).logits, expected_logits(2), atol=0.08)
    assert engine.losses == 3


def test_an_idle_card_that_stops_beating_is_restarted(stand_in_card: StandInCard, model) -> None:
    engine = stand_in_card.open(model, job_deadline_seconds=DEADLINE_SECONDS)
    time.sleep(2 * DEADLINE_SECONDS)
    assert engine.losses == 0
    stopped = engine.process_id
    os.kill(stopped, signal.SIGSTOP)
    deadline = time.monotonic() + BACK_WITHIN_SECONDS
    while engine.process_id in (stopped, None) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(stopped)
    np.testing.assert_allclose(engine.predict(batch(2)).logits, expected_logits(2), atol=0.08)
    assert engine.losses == 1


def test_closing_under_load_refuses_the_calls_and_leaves_no_process(stand_in_card: StandInCard, model) -> None:
    stand_in_card.behave(rate=100)
    engine, load = stand_in_card.open(model), Load()
    refused: list[str] = []

    def work() -> None:
        try:
            while True:
                engine.predict(batch(1))
        except EngineBusy as error:
            refused.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    engine.close()
    for thread in threads:
        thread.join(BACK_WITHIN_SECONDS)
    assert len(refused) == THREADS
    assert all("closed" in why for why in refused)
    assert stand_in_card.live_processes() == []
    assert load.answers == {}


FARM_SIDE = """
import sys, time
sys.path[:0] = sys.argv[3:5]
from pathlib import Path
from card_stand_in import StandInCard, known_network, write_xmodel
stand_in = StandInCard(Path(sys.argv[1]))
stand_in.behave(lives=[{"hang_at": int(sys.argv[2])}])
engine = stand_in.open(write_xmodel(Path(sys.argv[1]), known_network()))
print(engine.process_id, flush=True)
import numpy as np
engine.predict(np.zeros((64, 224, 224, 3), np.uint8))
time.sleep(60)
"""


@pytest.mark.parametrize("hang_at", [999, 3], ids=["idle", "hanging in wait"])
def test_no_process_outlives_a_worker_that_was_killed(tmp_path: Path, monkeypatch, hang_at: int) -> None:
    monkeypatch.setenv("STAND_IN", str(tmp_path / "stand-in.json"))
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", FARM_SIDE, str(tmp_path), str(hang_at), str(root), str(root / "tests")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        child = int(worker.stdout.readline())
        assert is_alive(child)
        time.sleep(0.2)
        worker.kill()
    deadline = time.monotonic() + BACK_WITHIN_SECONDS
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(child)
