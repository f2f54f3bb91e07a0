"""`farm cards` and the options of `farm worker` that are about cards, as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from farm.cli import app as door
from farm.jobs import cards

BDF = "0000:3b:00.1"


@pytest.fixture
def database_url(tmp_path):
    """Commands are the same on either database."""
    return f"sqlite:///{tmp_path / 'farm.db'}"


@pytest.fixture
def typed(farm, monkeypatch, capsys):
    """Types a command line of `farm`; its exit code, stdout and stderr."""
    from farm.settings import settings

    monkeypatch.setenv("FARM_DATABASE_URL", farm.settings.database_url)
    monkeypatch.setenv("FARM_STORAGE_URL", farm.settings.storage_url)
    settings.cache_clear()

    def run(*words: str):
        code = door.run(words)
        return code, *capsys.readouterr()

    yield run
    settings.cache_clear()


@pytest.fixture
def card(farm):
    card_id = cards.enlist(farm, "rack-1", BDF, worker=f"vck5000-{BDF}@rack-1", engine="vart")
    cards.describe(farm, card_id, "XFL1RT5PHT31", "xilinx_vck5000_gen4x8_qdma_base_2")
    cards.sample(farm, card_id, 61.0, 74.25)
    cards.beat(farm, card_id, cards.Beat(f"vck5000-{BDF}@rack-1", 640, 1, 3.0))
    return card_id


def test_list_shows_how_every_card_is(typed, card, farm):
    code, shown, _ = typed("cards", "list")
    assert code == 0
    for word in (f"rack-1/{BDF}", "XFL1RT5PHT31", "61", "74.25", "ready", "640"):
        assert word in shown
    cards.quarantine(farm, card, "it answers wrongly: reset it")
    assert f"rack-1/{BDF} is quarantined: it answers wrongly: reset it" in typed("cards", "list")[1]
    code, shown, _ = typed("cards", "list", "--json")
    [told] = json.loads(shown)
    assert (told["bdf"], told["celsius"], told["watts"], told["crops_done"], told["losses"]) == (
        BDF,
        61.0,
        74.25,
        640,
        1,
    )
    assert told["worker"] == f"vck5000-{BDF}@rack-1"


def test_a_farm_without_cards_says_so(typed):
    code, shown, said = typed("cards", "list")
    assert (code, shown) == (0, "")
    assert "listed once its worker started" in said
    assert typed("cards", "list", "--json")[1].strip() == "[]"


def test_status_says_when_batches_wait_for_a_card_and_none_takes_work(typed, rows, tmp_path, card, farm):
    rows.split(rows.videos(rows.submit(tmp_path / "in", {"one.mp4": b"one"}, engine="vart"))[0], batches=3)
    assert "wait for a card" not in typed("status")[1]
    cards.drain(farm, BDF, "new fans")
    assert "3 crop batches wait for a card, and no card takes work: see `farm cards list`" in typed("status")[1]


def test_drain_and_resume_say_what_became_of_the_card(typed, card):
    code, shown, _ = typed("cards", "drain", "3b:00.1", "--why", "new fans")
    assert (code, shown) == (0, f"card rack-1/{BDF} is drained (new fans); its worker obeys within seconds\n")
    code, shown, _ = typed("cards", "resume", "XFL1RT5PHT31", "--json")
    assert (code, json.loads(shown)["state"]) == (0, "ready")
    code, _, said = typed("cards", "resume", "0000:99:00.1")
    assert code == 1
    assert (
        f"no card is called 0000:99:00.1: name one as HOST/ADDRESS or by its serial number; known: rack-1/{BDF}" in said
    )


def test_check_walks_from_the_bus_on_and_its_exit_code_tells(tmp_path, stand_in_host):
    environment = {
        **os.environ,
        "FARM_LSPCI": stand_in_host.settings["lspci"],
        "FARM_XBUTIL": stand_in_host.settings["xbutil"],
    }

    def check(*words: str):
        command = [sys.executable, "-c", "from farm.cli import main; main()", "cards", "check", *words]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
        )

    none = check()
    assert (none.returncode, none.stdout) == (1, "")
    assert "no VCK5000 on this host's bus: seat the card" in none.stderr
    stand_in_host.plug(user_driver="")
    done = check()
    assert done.returncode == 1
    assert done.stdout.splitlines()[:2] == [
        f"card {BDF}",
        f"  lspci        OK   0000:3b:00.0 [10ee:5048], {BDF} [10ee:5049]",
    ]
    assert f"driver       FAIL {BDF} has the driver none, expected xocl" in done.stdout
    assert "next: `sudo modprobe xocl`" in done.stdout
    told = json.loads(check("3b:00.1", "--json").stdout)["cards"]
    assert [(step["name"], step["ok"]) for step in told[BDF]] == [("lspci", True), ("driver", False)]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "name the --queue"),
        (("--card", BDF, "--all-cards"), "--card names one card"),
        (("--queue", "split", "--card", BDF), "a split worker drives no card"),
        (("--queue", "train", "--engine", "vart"), "runs no engine"),
    ],
)
def test_a_worker_without_a_queue_or_with_cards_that_contradict_is_a_usage_error(typed, words, why):
    code, _, said = typed("worker", *words)
    assert code == 2
    assert why in " ".join(said.split())


def test_a_host_that_cannot_list_its_bus_is_told_at_once(tmp_path, farm):
    environment = {
        **os.environ,
        "FARM_LSPCI": "/nowhere/lspci",
        "FARM_DATABASE_URL": farm.settings.database_url,
        "FARM_STORAGE_URL": farm.settings.storage_url,
    }
    command = [sys.executable, "-c", "from farm.cli import main; main()", "worker", "--all-cards"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 69
    assert (
        "worker cannot start: /nowhere/lspci cannot be run (No such file or directory): install pciutils, or set FARM_LSPCI"
        in done.stderr
    )
