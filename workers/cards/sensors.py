"""What XRT's `xbutil examine` says of a card and of this host. Never calls `xbutil validate`, which loads an xclbin of its own.

The JSON comes from a property tree without types, so every leaf may be a string, "N/A" or empty.
"""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farm.errors import EngineBusy
from farm.settings import Settings
from workers.cards.programs import last_line, run_program


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a card's sensors; None where it does not tell."""

    #: of the hottest sensor
    celsius: float | None
    #: which that is
    hottest: str
    #: of the whole card
    watts: float | None


@dataclass(frozen=True, slots=True)
class Platform:
    """What is flashed on a card; empty where it does not tell."""

    shell: str
    serial: str
    #: of the satellite controller, and what the shell was made for
    firmware: str
    firmware_expected: str


@dataclass(frozen=True, slots=True)
class Device:
    """A card as XRT lists it."""

    bdf: str
    shell: str
    ready: bool


@dataclass(frozen=True, slots=True)
class Host:
    """XRT on this host."""

    version: str
    #: version by name (xocl, xclmgmt), "unknown" where it is not loaded
    drivers: dict[str, str] = field(default_factory=dict)
    devices: tuple[Device, ...] = ()


def read_sensors(chosen: Settings, bdf: str) -> Reading:
    """The card's hottest temperature and its power. Raises EngineMissing without xbutil, EngineBusy where it gives no report."""
    device = _device(examine(chosen, ("thermal", "electrical"), bdf))
    sensors = [
        (celsius, str(sensor.get("description") or sensor.get("location_id") or "?"))
        for sensor in _list(device, "thermals")
        if is_true(sensor.get("is_present")) and (celsius := number(sensor.get("temp_C"))) is not None
    ]
    celsius, hottest = max(sensors, default=(None, ""))
    return Reading(celsius, hottest, number(_dict(device, "electrical").get("power_consumption_watts")))


def read_platform(chosen: Settings, bdf: str) -> Platform:
    """Shell, serial number and firmware. Raises as `read_sensors` does."""
    device = _device(examine(chosen, ("platform",), bdf))
    platform = next(iter(_list(device, "platforms")), {})
    controller = _dict(platform, "controller")
    satellite = _dict(controller, "satellite_controller")
    return Platform(
        shell=_text(_dict(platform, "static_region").get("vbnv")),
        serial=_text(_dict(controller, "card_mgmt_controller").get("serial_number")),
        firmware=_text(satellite.get("version")),
        firmware_expected=_text(satellite.get("expected_version")),
    )


def read_host(chosen: Settings) -> Host:
    """XRT's version, drivers and the cards that it lists, in its own order. Raises as `read_sensors` does."""
    host = _dict(_dict(examine(chosen, ("host",)), "system"), "host")
    xrt = _dict(host, "xrt")
    drivers = {_text(each.get("name")): _text(each.get("version")) for each in _list(xrt, "drivers")}
    devices = tuple(
        Device(_text(each.get("bdf")).lower(), _text(each.get("vbnv")), is_true(each.get("is_ready", "true")))
        for each in _list(host, "devices")
    )
    return Host(_text(xrt.get("version")), drivers, devices)


def examine(chosen: Settings, reports: tuple[str, ...], bdf: str = "") -> dict[str, Any]:
    """The JSON of `xbutil examine`; a report that failed is missing in it. Raises EngineMissing, EngineBusy."""
    about = f"of card {bdf}" if bdf else "of this host"
    with tempfile.TemporaryDirectory(prefix="farm-xbutil-") as folder:
        path = Path(folder) / "examine.json"  # xbutil refuses to write over a file
        device = ["--device", bdf] if bdf else []
        arguments = ["examine", *device, "--format", "JSON", "--report", *reports, "--output", str(path)]
        status, out, err = run_program(
            chosen.xbutil,
            arguments,
            seconds=chosen.card_program_seconds,
            setting="FARM_XBUTIL",
            remedy="install XRT and source /opt/xilinx/xrt/setup.sh",
        )
        try:
            report = json.loads(path.read_text(errors="replace"))
        except OSError as error:
            raise EngineBusy(
                f"{chosen.xbutil} gave no report {about}, status {status}: {last_line(out, err)}"
            ) from error
        except ValueError as error:
            raise EngineBusy(f"{chosen.xbutil}'s report {about} is no JSON: {error}") from error
    if not isinstance(report, dict):
        raise EngineBusy(f"{chosen.xbutil}'s report {about} is no JSON object")
    return report


def number(leaf: Any) -> float | None:
    """A finite number, however it is written; None for "N/A" and the like."""
    try:
        value = float(leaf)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def is_true(leaf: Any) -> bool:
    """Whether a leaf says yes."""
    return str(leaf).strip().lower() in ("true", "1", "yes")


def _text(leaf: Any) -> str:
    """A leaf as text; empty for what stands for nothing."""
    text = "" if leaf is None else str(leaf).strip()
    return "" if text.lower() in ("n/a", "null", "none") else text


def _device(report: dict[str, Any]) -> dict[str, Any]:
    """The one device that a report is about."""
    return next(iter(_list(report, "devices")), {})


def _dict(tree: dict[str, Any], key: str) -> dict[str, Any]:
    found = tree.get(key)  # an empty subtree is written as an empty string
    return found if isinstance(found, dict) else {}


def _list(tree: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = tree.get(key)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
