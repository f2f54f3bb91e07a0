"""The walk through a card's set-up: every step that can fail, with the next thing to do."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from card_stand_in import FOLDER, StandInCard, known_network, write_xmodel
from host_stand_in import StandInHost

from farm.jobs.cards import CardStatus
from farm.settings import Settings, settings
from workers.cards.check import XCLBIN_MAGIC, Check, Step

STEPS = [
    "lspci",
    "driver",
    "XRT",
    "shell",
    "firmware",
    "sensors",
    "xclbin",
    "runtime",
    "model",
    "fingerprint",
    "canary",
]
BDF = "0000:3b:00.1"


@pytest.fixture
def ready(
    stand_in_host: StandInHost, stand_in_card: StandInCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Settings under which every step is right."""
    stand_in_host.plug()
    firmware = tmp_path / "4PE300.xclbin"
    firmware.write_bytes(XCLBIN_MAGIC + b"...")
    chosen = {
        **stand_in_host.settings,
        "vart_python": sys.executable,
        "vart_path": str(FOLDER),
        "vart_firmware": str(firmware),
        "vart_lock_folder": str(tmp_path / "locks"),
    }
    monkeypatch.delenv("XLNX_VART_FIRMWARE", raising=False)
    return chosen


def walk(chosen: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch, **model: Any) -> list[Step]:
    """The steps of a check under these settings, which the engine reads too."""
    for name, value in chosen.items():
        monkeypatch.setenv(f"FARM_{name.upper()}", str(value))
    settings.cache_clear()
    try:
        found = write_xmodel(folder, known_network(), **model)
        return list(Check(Settings(**chosen), BDF, find_weights=lambda: found).walk())
    finally:
        settings.cache_clear()


def test_a_card_that_is_set_up_passes_every_step(ready, stand_in_host, stand_in_card, tmp_path, monkeypatch) -> None:
    steps = walk(ready, tmp_path, monkeypatch)
    assert [(step.name, step.ok) for step in steps] == [(name, True) for name in STEPS]
    said = {step.name: step.said for step in steps}
    assert said["shell"] == "xilinx_vck5000_gen4x8_qdma_base_2"
    assert said["sensors"] == "45 C (Device), 38.5 W"
    assert "0x501000000140fee" in said["fingerprint"]
    assert said["canary"] == "golden pictures answered rightly, batch 8"
    assert stand_in_card.live_processes() == []
    assert not stand_in_host.was_validated


WRONG: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "no driver": ({"user_driver": ""}, "driver", "0000:3b:00.1 has the driver none, expected xocl", "modprobe xocl"),
    "no management driver": (
        {"management_driver": "vfio-pci"},
        "driver",
        "driver vfio-pci, expected xclmgmt",
        "modprobe xclmgmt",
    ),
    "golden image": ({"shell": "xilinx_vck5000_GOLDEN_2"}, "shell", "GOLDEN_2, not ready", "xbmgmt program --base"),
    "not ready": ({"ready": "false"}, "shell", "not ready", "xbmgmt program --base"),
    "old firmware": ({"firmware": "4.3.1"}, "firmware", "4.3.1, the shell expects 4.4.35", "xbmgmt program --base"),
    "too hot": ({"celsius": "97"}, "sensors", "Device is at 97 C, at or above 85 C", "fans"),
    "blind": ({"fails": ["thermal"]}, "sensors", "no temperature is told", "xbutil examine"),
}


@pytest.mark.parametrize(("card", "name", "said", "remedy"), WRONG.values(), ids=WRONG.keys())
def test_a_card_that_is_not_set_up_stops_the_walk_with_what_to_do(
    ready, stand_in_host, tmp_path, monkeypatch, card, name, said, remedy
) -> None:
    stand_in_host.plug(**card)
    steps = walk(ready, tmp_path, monkeypatch)
    assert [step.name for step in steps] == STEPS[: STEPS.index(name) + 1]
    assert [step.ok for step in steps[:-1]] == [True] * (len(steps) - 1)
    assert not steps[-1].ok
    assert said in steps[-1].said
    assert remedy in steps[-1].remedy


def test_a_card_that_is_not_there_and_one_without_its_user_function_are_told(
    ready, stand_in_host, tmp_path, monkeypatch
) -> None:
    stand_in_host.plug(user="")
    steps = walk(ready, tmp_path, monkeypatch)
    assert [step.name for step in steps] == ["lspci"]
    assert "no VCK5000 at 0000:3b:00.1" in steps[0].said and "power cables" in steps[0].remedy
    only = Check(Settings(**ready), "0000:3b:00.0")
    last = list(only.walk())[-1]
    assert (last.name, last.ok) == ("driver", False)
    assert "factory image" in last.remedy


SETTINGS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no xbutil": ({"xbutil": "/nowhere/xbutil"}, "XRT", "FARM_XBUTIL"),
    "no firmware": ({"vart_firmware": ""}, "xclbin", "no firmware is set"),
    "missing firmware": ({"vart_firmware": "/nowhere.xclbin"}, "xclbin", "/nowhere.xclbin cannot be read"),
    "no xclbin": ({"vart_firmware": __file__}, "xclbin", "is no xclbin"),
    "no interpreter": ({"vart_python": ""}, "runtime", "no interpreter is set"),
    "no runtime": ({"vart_path": ""}, "runtime", "cannot import xir and vart: ModuleNotFoundError"),
}


@pytest.mark.parametrize(("changed", "name", "said"), SETTINGS.values(), ids=SETTINGS.keys())
def test_a_setting_that_is_wrong_stops_the_walk(ready, tmp_path, monkeypatch, changed, name, said) -> None:
    last = walk({**ready, **changed}, tmp_path, monkeypatch)[-1]
    assert (last.name, last.ok) == (name, False)
    assert said in last.said


MODELS: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "not compiled": ({"dpu": {}}, {}, "model", "not compiled for a DPU"),
    "another DPU": (
        {"dpu": {"fingerprint": "0x1"}},
        {},
        "fingerprint",
        "fingerprint is 0x501000000140fee, its model card says 0x1",
    ),
    "wrong answers": (
        {},
        {"lives": [{"same_at": 1}]},
        "canary",
        "is quarantined: it answers four different golden pictures the same",
    ),
    "no device": ({}, {"no_card": True}, "fingerprint", "no device found"),
}


@pytest.mark.parametrize(("model", "behaviour", "name", "said"), MODELS.values(), ids=MODELS.keys())
def test_a_model_or_card_that_is_wrong_stops_the_walk(
    ready, stand_in_card, tmp_path, monkeypatch, model, behaviour, name, said
) -> None:
    stand_in_card.behave(**behaviour)
    last = walk(ready, tmp_path, monkeypatch, **model)[-1]
    assert (last.name, last.ok) == (name, False)
    assert said in last.said


def driven(**changes: Any) -> CardStatus:
    """The row of a card that a worker has open."""
    told = {field.name: None for field in fields(CardStatus)}
    told |= {"host": "rack-1", "bdf": BDF, "state": "ready", "worker": f"vck5000-{BDF}@rack-1", "canary_at": 1.0}
    return CardStatus(**told | changes)


@pytest.mark.parametrize(("canary_at", "ok"), [(1.0, True), (None, False)])
def test_a_card_that_a_worker_has_open_is_left_to_it_and_its_answers_are_told(
    ready, stand_in_card, tmp_path, canary_at, ok
) -> None:
    found = write_xmodel(tmp_path, known_network())
    steps = list(Check(Settings(**ready), BDF, driven=driven(canary_at=canary_at), find_weights=lambda: found).walk())
    assert [step.name for step in steps] == STEPS
    assert (steps[-1].ok, f"vck5000-{BDF}@rack-1" in steps[-2].said) == (ok, True)
    assert stand_in_card.journal("start") == []


def test_a_card_that_another_process_drives_is_told_with_its_holder(
    ready, stand_in_card, tmp_path, monkeypatch
) -> None:
    stand_in_card.open(write_xmodel(tmp_path, known_network()), device=BDF, lock_folder=ready["vart_lock_folder"])
    last = walk(ready, tmp_path, monkeypatch)[-1]
    assert (last.name, last.ok) == ("fingerprint", False)
    assert f"card {BDF} is already driven by process" in last.said
    assert "farm cards drain" in last.remedy
