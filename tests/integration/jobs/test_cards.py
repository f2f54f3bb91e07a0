"""Cards as rows, on a real SQLite and a real PostgreSQL: who may move one from which state, and what is remembered."""

from __future__ import annotations

import urllib.request
from contextlib import closing
from socket import socket

import pytest
from sqlalchemy import select

from farm.db.models import CardSample, CardState, CropBatchRow
from farm.errors import BadInput, CardQuarantined, EngineBusy
from farm.jobs import cards
from farm.jobs.claim import claim, decline
from farm.jobs.fail import fail
from farm.jobs.metrics import serve_metrics

BDF = "0000:3b:00.1"


def enlist(farm, host="rack-1", bdf=BDF):
    return cards.enlist(farm, host, bdf, worker=f"vck5000-{bdf}@{host}", engine="vart")


def state(farm):
    return [(card.state, card.reason) for card in cards.list_cards(farm)]


def beat(farm, card_id, **said):
    return cards.beat(farm, card_id, cards.Beat("node", **said))


@pytest.fixture
def batch(rows, tmp_path):
    """A crop batch that waits, of a scan that asks for the simulated engine."""
    scan_id = rows.submit(tmp_path / "in", {"one.mp4": b"one"}, engine="simulated")
    rows.split(rows.videos(scan_id)[0], batches=1)
    return rows.batches(scan_id)[0]


@pytest.fixture
def reread(rows, batch):
    """Reads the batch's row again."""
    return lambda: rows.batches(batch.scan_id)[0]


def test_a_card_is_one_row_however_often_its_worker_starts(farm):
    first, again = enlist(farm), enlist(farm)
    assert first == again != enlist(farm, "rack-2")
    assert [(card.host, card.worker) for card in cards.list_cards(farm)] == [
        ("rack-1", f"vck5000-{BDF}@rack-1"),
        ("rack-2", f"vck5000-{BDF}@rack-2"),
    ]


def test_beats_add_up_and_tell_what_the_card_may_do(farm):
    card_id = enlist(farm)
    assert beat(farm, card_id, crops=64, losses=1, canary_age_seconds=5.0) is CardState.READY
    assert beat(farm, card_id, crops=36) is CardState.READY
    [card] = cards.list_cards(farm)
    assert (card.crops_done, card.losses) == (100, 1)
    assert card.canary_at == pytest.approx(card.changed_at - 5.0, abs=30)


def test_a_worker_that_was_not_heard_for_long_is_not_shown(impatient):
    farm = impatient(card_beat_seconds=1.0)
    enlist(farm)
    assert cards.list_cards(farm)[0].worker
    with farm.write() as connection:
        connection.execute(cards.CARDS.update().values(seen_at=cards.CARDS.c.seen_at - cards.SILENT_SECONDS - 1))
    assert cards.list_cards(farm)[0].worker is None


def test_a_drained_card_says_why_and_works_again_when_resumed(farm):
    card_id = enlist(farm)
    assert cards.drain(farm, BDF, "new fans").state == CardState.DRAINED
    assert beat(farm, card_id) is CardState.DRAINED
    assert state(farm) == [("drained", "new fans")]
    assert cards.resume(farm, "3b:00.1").state == CardState.READY
    assert state(farm) == [("ready", None)]


def test_heat_drains_and_only_the_lower_threshold_resumes(impatient):
    farm = impatient(card_drain_celsius=85.0, card_resume_celsius=75.0)
    card_id = enlist(farm)
    seen = []
    for celsius in (84.9, 85.0, 80.0, 75.1, None, 75.0, 80.0, 90.0):
        cards.sample(farm, card_id, celsius, 40.0)
        seen.append(beat(farm, card_id).value)
    assert seen == ["ready", "hot", "hot", "hot", "hot", "ready", "ready", "hot"]
    assert "90 C is at or above 85 C" in state(farm)[0][1]


def test_a_card_drained_by_hand_is_not_resumed_by_cooling_down(farm):
    card_id = enlist(farm)
    cards.drain(farm, BDF, "by hand")
    for celsius in (95.0, 40.0):
        cards.sample(farm, card_id, celsius, None)
    assert state(farm) == [("drained", "by hand")]


def test_a_quarantine_outlasts_a_drain_a_restart_and_cooling_down(farm):
    card_id = enlist(farm)
    cards.quarantine(farm, card_id, "wrong answers")
    cards.drain(farm, BDF, "by hand")
    cards.sample(farm, card_id, 40.0, None)
    assert enlist(farm) == card_id
    assert state(farm) == [("quarantined", "wrong answers")]
    assert cards.resume(farm, BDF).state == CardState.READY


def test_a_card_that_was_gone_is_ready_when_a_worker_finds_it_again(farm):
    enlist(farm)
    cards.mark_gone(farm, "rack-1", BDF, "it left the bus")
    cards.mark_gone(farm, "rack-1", "0000:ff:00.1", "never known")
    assert state(farm) == [("gone", "it left the bus")]
    enlist(farm)
    assert state(farm) == [("ready", None)]


def test_a_quarantined_card_that_falls_off_the_bus_is_quarantined_when_it_comes_back(farm):
    cards.quarantine(farm, enlist(farm), "wrong answers")
    cards.mark_gone(farm, "rack-1", BDF, "it left the bus")
    enlist(farm)
    assert state(farm) == [("quarantined", "wrong answers")]


def test_old_samples_are_dropped(impatient):
    farm = impatient(card_samples_kept_seconds=3600.0)
    card_id, other = enlist(farm), enlist(farm, "rack-2")
    for celsius in (40.0, 41.0):
        cards.sample(farm, card_id, celsius, 38.5)
        cards.sample(farm, other, celsius, None)
    with farm.write() as connection:
        old = cards.SAMPLES.c.celsius == 40.0
        connection.execute(cards.SAMPLES.update().where(old).values(sampled_at=cards.SAMPLES.c.sampled_at - 3601))
    cards.sample(farm, card_id, 42.0, 38.5)
    with farm.sessions() as session:
        kept = session.execute(select(CardSample.card_id, CardSample.celsius).order_by(CardSample.id)).all()
    assert kept == [(other, 40.0), (card_id, 41.0), (other, 41.0), (card_id, 42.0)]


def test_a_card_is_named_by_address_host_and_address_or_serial_number(farm):
    cards.describe(farm, enlist(farm), "XFL1", "shell")
    enlist(farm, "rack-2")
    enlist(farm, "rack-2", "0000:5e:00.1")
    for name in (f"rack-1/{BDF}", "rack-1/3b:00.1", "XFL1"):
        assert cards.drain(farm, name, "why").host == "rack-1"
    assert cards.drain(farm, "5e:00.1", "why").host == "rack-2"
    with pytest.raises(BadInput, match=f"2 cards are called {BDF}: .*rack-1/{BDF}, rack-2/{BDF}"):
        cards.drain(farm, BDF, "why")
    with pytest.raises(BadInput, match=r"no card is called nonsense: .*rack-1/"):
        cards.resume(farm, "nonsense")


def test_a_batch_of_another_engine_is_not_to_be_had(farm, batch, reread):
    assert claim(farm, CropBatchRow, batch.id, "cpu", "onnx") is None
    assert (reread().state, reread().attempts) == ("ready", 0)
    assert claim(farm, CropBatchRow, batch.id, "card", "simulated") is not None


def test_a_quarantined_card_costs_a_batch_no_attempt_and_a_busy_one_does(farm, batch, reread):
    for _ in range(farm.settings.max_attempts + 2):
        assert fail(farm, claim(farm, CropBatchRow, batch.id, "card"), CardQuarantined("it answers wrongly")) == "ready"
    assert (reread().state, reread().attempts, reread().rung_at) == ("ready", 0, 0.0)
    fail(farm, claim(farm, CropBatchRow, batch.id, "card"), EngineBusy("it hung"))
    assert reread().attempts == 1


def test_a_batch_that_is_declined_is_rung_for_again_and_one_that_is_held_is_left(farm, batch, reread):
    with farm.write() as connection:
        connection.execute(CropBatchRow.__table__.update().values(rung_at=5.0))
    decline(farm, CropBatchRow, batch.id)
    assert reread().rung_at == 0.0
    claim(farm, CropBatchRow, batch.id, "another")
    with farm.write() as connection:
        connection.execute(CropBatchRow.__table__.update().values(rung_at=5.0))
    decline(farm, CropBatchRow, batch.id)
    assert (reread().state, reread().rung_at) == ("leased", 5.0)


@pytest.fixture
def scrape(impatient):
    """Serves the farm's figures and reads them once."""

    def scrape():
        with closing(socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        serve_metrics(impatient(metrics_port=port))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return answer.read().decode().splitlines()

    return scrape


def test_prometheus_is_told_of_cards_and_of_the_work_that_waits(farm, batch, scrape):
    card_id = enlist(farm)
    cards.describe(farm, card_id, "XFL1", "shell")
    cards.sample(farm, card_id, 61.5, None)
    beat(farm, card_id, crops=64, losses=2)
    told = scrape()
    labels = f'bdf="{BDF}",host="rack-1",serial="XFL1"'
    for line in (
        "farm_sql_up 1.0",
        f"farm_card_temperature_celsius{{{labels}}} 61.5",
        f'farm_card_state{{{labels},state="ready"}} 1.0',
        f'farm_card_state{{{labels},state="hot"}} 0.0',
        f"farm_card_worker_up{{{labels}}} 1.0",
        f"farm_card_crops_total{{{labels}}} 64.0",
        f"farm_card_losses_total{{{labels}}} 2.0",
        'farm_rows{queue="infer.simulated",state="ready"} 1.0',
    ):
        assert line in told
    assert not any(line.startswith("farm_card_power_watts{") for line in told)


def test_without_a_port_nothing_listens_and_one_that_is_taken_is_told(farm, impatient):
    serve_metrics(farm)
    with closing(socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BadInput, match="FARM_METRICS_PORT"):
            serve_metrics(impatient(metrics_port=taken.getsockname()[1]))
