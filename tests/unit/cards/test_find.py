"""Which cards a host has, as `lspci` and `xbutil` say, however they write it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from host_stand_in import StandInHost

from farm.errors import BadInput, EngineBusy, EngineMissing
from farm.settings import Settings, read_settings
from workers.cards.find import card_address, find_card, find_cards, full_address, is_address
from workers.cards.sensors import Reading, examine, is_true, number, read_host, read_platform, read_sensors


@pytest.fixture
def chosen(stand_in_host: StandInHost) -> Settings:
    return Settings(**stand_in_host.settings)


def test_a_card_is_its_two_functions_and_called_by_its_user_function(
    stand_in_host: StandInHost, chosen: Settings
) -> None:
    stand_in_host.plug("0000:5e:00", user="5045", management="5044")
    stand_in_host.plug("0000:3b:00")
    stand_in_host.say(stranger=True)
    cards = find_cards(chosen)
    assert [card.bdf for card in cards] == ["0000:3b:00.1", "0000:5e:00.1"]
    assert [function.driver for function in cards[0].functions] == ["xclmgmt", "xocl"]
    for name in ("0000:3b:00.0", "3b:00.1", "3B:00.0"):
        assert find_card(cards, name) == cards[0]
    assert find_card(cards, "0000:af:00.0") is None


def test_a_host_without_cards_has_none(chosen: Settings) -> None:
    assert find_cards(chosen) == []


def test_a_card_that_shows_one_function_alone_is_found(stand_in_host: StandInHost, chosen: Settings) -> None:
    stand_in_host.plug("0000:3b:00", management="")
    stand_in_host.plug("0000:5e:00", user="")
    assert [card.bdf for card in find_cards(chosen)] == ["0000:3b:00.1", "0000:5e:00.0"]


def test_a_workers_card_may_be_named_by_any_of_its_functions(stand_in_host: StandInHost, chosen: Settings) -> None:
    stand_in_host.plug("0000:3b:00")
    no_lspci = chosen.model_copy(update={"lspci": "/nowhere/lspci"})
    assert card_address(chosen, "3b:00.0") == card_address(chosen, "0000:3B:00.1") == "0000:3b:00.1"
    assert card_address(chosen, "5e:00.0") == card_address(no_lspci, "5e:00.0") == "0000:5e:00.0"
    assert card_address(no_lspci, "simulated-0") == "simulated-0"


def test_addresses_are_told_from_other_names() -> None:
    assert full_address("3B:00.1") == "0000:3b:00.1"
    assert full_address("simulated-0") == "simulated-0"
    assert is_address("0000:3b:00.1") and is_address("3b:00.0") and not is_address("card-0")


@pytest.mark.parametrize(
    ("program", "why"), [("lspci", "FARM_LSPCI.*"), ("xbutil", "source /opt/xilinx/xrt/setup.sh, or set FARM_XBUTIL")]
)
def test_a_missing_program_is_told_with_its_setting(chosen: Settings, program: str, why: str) -> None:
    broken = chosen.model_copy(update={program: "/nowhere/program"})
    with pytest.raises(EngineMissing, match=f"/nowhere/program cannot be run .*{why}"):
        find_cards(broken) if program == "lspci" else read_host(broken)


def test_the_hottest_sensor_and_the_power_are_read_from_strings(stand_in_host: StandInHost, chosen: Settings) -> None:
    bdf = stand_in_host.plug(celsius="61", watts="74.250000")
    assert read_sensors(chosen, bdf) == Reading(61.0, "Device", 74.25)


def test_what_a_card_does_not_tell_is_none_and_never_nought(stand_in_host: StandInHost, chosen: Settings) -> None:
    bdf = stand_in_host.plug(celsius="N/A", watts="N/A", fails=["thermal"])
    assert read_sensors(chosen, bdf) == Reading(None, "", None)
    stand_in_host.plug(fails=[])
    assert read_sensors(chosen, bdf) == Reading(41.0, "VCCINT Temp", None)


@pytest.mark.parametrize(
    ("leaf", "value"),
    [("45", 45.0), (45, 45.0), ("45.5", 45.5), ("N/A", None), ("", None), (None, None), ("nan", None), ([], None)],
)
def test_a_number_is_read_however_it_is_written(leaf: object, value: float | None) -> None:
    assert number(leaf) == value


def test_yes_is_read_however_it_is_written() -> None:
    assert all(map(is_true, ("true", True, "1", " True ")))
    assert not any(map(is_true, ("false", False, "", None, "N/A")))


def test_shell_serial_number_and_firmware_are_read(stand_in_host: StandInHost, chosen: Settings) -> None:
    bdf = stand_in_host.plug(serial="N/A", firmware="4.4.6")
    platform = read_platform(chosen, bdf)
    assert (platform.shell, platform.serial) == ("xilinx_vck5000_gen4x8_qdma_base_2", "")
    assert (platform.firmware, platform.firmware_expected) == ("4.4.6", "4.4.35")


def test_the_host_tells_xrt_and_its_cards_in_its_own_order(stand_in_host: StandInHost, chosen: Settings) -> None:
    assert read_host(chosen).devices == ()
    stand_in_host.plug("0000:5e:00", ready="false")
    stand_in_host.plug("0000:3b:00")
    host = read_host(chosen)
    assert host.version == "2.14.354"
    assert set(host.drivers) == {"xocl", "xclmgmt"}
    assert [(device.bdf, device.ready) for device in host.devices] == [("0000:5e:00.1", False), ("0000:3b:00.1", True)]


def test_a_card_that_xbutil_does_not_know_is_told_in_its_words(chosen: Settings) -> None:
    with pytest.raises(EngineBusy, match=r"gave no report of card 0000:3b:00.1, status 1: .*'0000:3b:00.1' not found"):
        read_sensors(chosen, "0000:3b:00.1")


def test_a_driver_that_hangs_is_noticed(stand_in_host: StandInHost, chosen: Settings) -> None:
    bdf = stand_in_host.plug(hangs=30)
    with pytest.raises(EngineBusy, match=r"did not answer within 0.5 s: the card's driver may hang"):
        read_sensors(chosen.model_copy(update={"card_program_seconds": 0.5}), bdf)


@pytest.mark.parametrize("written", ["", "no JSON", "[]"])
def test_a_report_that_is_none_is_told(tmp_path: Path, written: str) -> None:
    program = tmp_path / "xbutil"
    program.write_text(f'#!/bin/sh\nfor last; do :; done\nprintf %s {json.dumps(written)} > "$last"\n')
    program.chmod(0o755)
    with pytest.raises(EngineBusy, match="no JSON"):
        examine(Settings(xbutil=str(program)), ("host",))


def test_a_card_that_would_never_cool_down_enough_is_a_wrong_setting() -> None:
    with pytest.raises(BadInput, match=r"FARM_CARD_RESUME_CELSIUS \(90\) must be below FARM_CARD_DRAIN_CELSIUS \(85\)"):
        read_settings(card_resume_celsius=90)
