"""Walks through a card's set-up, from the bus to the golden pictures, and says what to do at the first step that fails.

Each step rests on those before it, so the walk stops there. Nothing here loads an xclbin but the engine itself, and that only on a card
that no worker drives.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from farm.contracts import ModelCard
from farm.errors import BadModel, CardQuarantined, EngineBusy, EngineMissing, FarmError
from farm.jobs.cards import CardStatus
from farm.settings import Settings
from workers.cards.find import MANAGEMENT_IDS, USER_IDS, FoundCard, find_card, find_cards
from workers.cards.programs import last_line
from workers.cards.sensors import read_host, read_platform, read_sensors

XCLBIN_MAGIC = b"xclbin2\0"
"""How every xclbin begins (Xilinx/XRT, xclbin.h)."""
RUNTIME_SECONDS = 60.0

Model = tuple[Path, ModelCard]


@dataclass(frozen=True, slots=True)
class Step:
    """One step and how it went."""

    name: str
    ok: bool
    #: what was found, or what is wrong
    said: str
    #: what to do about it; empty where nothing is
    remedy: str = ""


class Failed(Exception):
    """A step is not as it must be."""

    def __init__(self, said: str, remedy: str) -> None:
        super().__init__(said)
        self.remedy = remedy


class Check:
    """The walk for one card."""

    def __init__(
        self,
        chosen: Settings,
        bdf: str,
        *,
        driven: CardStatus | None = None,
        find_weights: Callable[[], Model] | None = None,
    ) -> None:
        """`driven` is the card's row where a worker has it open now; `find_weights` finds the model that the settings name."""
        self._chosen, self._bdf, self._driven = chosen, bdf, driven
        self._find_weights = find_weights
        self._card: FoundCard | None = None
        self._model: Model | None = None
        self._opened = ""

    def walk(self) -> Iterator[Step]:
        """The steps, as they are done; the last one may be one that failed."""
        for name, step in self._steps():
            try:
                yield Step(name, True, step())
            except Failed as failed:
                yield Step(name, False, str(failed), failed.remedy)
                return
            except FarmError as error:
                yield Step(name, False, str(error))
                return

    def _steps(self) -> tuple[tuple[str, Callable[[], str]], ...]:
        return (
            ("lspci", self._on_the_bus),
            ("driver", self._driver),
            ("XRT", self._xrt),
            ("shell", self._shell),
            ("firmware", self._firmware),
            ("sensors", self._sensors),
            ("xclbin", self._xclbin),
            ("runtime", self._runtime),
            ("model", self._compiled),
            ("fingerprint", self._fingerprint),
            ("canary", self._canary),
        )

    def _on_the_bus(self) -> str:
        self._card = find_card(find_cards(self._chosen), self._bdf)
        if self._card is None:
            raise Failed(
                f"no VCK5000 at {self._bdf}",
                "look at `lspci -d 10ee:`; if it lists none, seat the card, plug its power cables, and switch the host off and on",
            )
        return ", ".join(f"{function.bdf} [10ee:{function.device}]" for function in self._card.functions)

    def _driver(self) -> str:
        assert self._card is not None
        if self._card.user is None:
            raise Failed(
                f"only the management function is there ({'/'.join(MANAGEMENT_IDS)}), no user function ({'/'.join(USER_IDS)})",
                "the card has its factory image: `sudo xbmgmt program --base --device BDF` with the deployment platform installed, "
                "then switch the host off and on",
            )
        wanted = ((self._card.user, "xocl"), (self._card.management, "xclmgmt"))
        for function, driver in wanted:
            if function is not None and function.driver != driver:
                raise Failed(
                    f"{function.bdf} has the driver {function.driver or 'none'}, expected {driver}",
                    f"`sudo modprobe {driver}`; if that fails, install XRT for this kernel (its DKMS modules) and look at dmesg",
                )
        return ", ".join(driver for function, driver in wanted if function is not None)

    def _xrt(self) -> str:
        host = read_host(self._chosen)
        if not host.version:
            raise Failed("xbutil does not tell XRT's version", "install XRT of the card's release, `source setup.sh`")
        unknown = [name for name, version in host.drivers.items() if version in ("", "unknown")]
        if unknown:
            raise Failed(
                f"XRT {host.version} does not see {', '.join(unknown)}", "install XRT and its drivers of one release"
            )
        return f"{host.version} ({', '.join(f'{name} {version.partition(chr(44))[0]}' for name, version in host.drivers.items())})"

    def _shell(self) -> str:
        devices = {device.bdf: device for device in read_host(self._chosen).devices}
        flash = (
            "flash the deployment platform: `sudo xbmgmt program --base --device BDF`, then switch the host off and on"
        )
        device = devices.get(self._address)
        if device is None:
            raise Failed(f"XRT lists {', '.join(devices) or 'no card'}, not {self._address}", flash)
        if not device.ready or "golden" in device.shell.lower():
            raise Failed(f"{device.shell or 'no shell'}, not ready", flash)
        return device.shell

    def _firmware(self) -> str:
        platform = read_platform(self._chosen, self._address)
        if platform.firmware_expected and platform.firmware != platform.firmware_expected:
            raise Failed(
                f"satellite controller {platform.firmware or 'unknown'}, the shell expects {platform.firmware_expected}",
                "`sudo xbmgmt program --base --device BDF` updates it; then switch the host off and on",
            )
        return (
            f"satellite controller {platform.firmware or '(not told)'}, serial number {platform.serial or '(not told)'}"
        )

    def _sensors(self) -> str:
        reading = read_sensors(self._chosen, self._address)
        if reading.celsius is None:
            raise Failed(
                "no temperature is told, so the card cannot be drained when it is hot", "look at `xbutil examine`"
            )
        if reading.celsius >= self._chosen.card_drain_celsius:
            raise Failed(
                f"{reading.hottest} is at {reading.celsius:g} C, at or above {self._chosen.card_drain_celsius:g} C",
                "look at the server's fans and air flow, let it cool down",
            )
        watts = "power not told" if reading.watts is None else f"{reading.watts:g} W"
        return f"{reading.celsius:g} C ({reading.hottest}), {watts}"

    def _xclbin(self) -> str:
        named = self._chosen.vart_firmware or self._chosen.xlnx_vart_firmware
        take = "set FARM_VART_FIRMWARE (or XLNX_VART_FIRMWARE) to the xclbin of the card's DPU"
        if not named:
            raise Failed("no firmware is set", take)
        try:
            with Path(named).open("rb") as file:
                magic = file.read(len(XCLBIN_MAGIC))
        except OSError as error:
            raise Failed(f"{named} cannot be read ({error.strerror})", take) from error
        if magic != XCLBIN_MAGIC:
            raise Failed(f"{named} is no xclbin", take)
        return named

    def _runtime(self) -> str:
        python, folders = self._chosen.vart_python, self._chosen.vart_path
        take = "set FARM_VART_PYTHON to the interpreter of the Vitis AI environment (and FARM_VART_PATH to its modules' folders)"
        if not python:
            raise Failed("no interpreter is set", take)
        code = (
            "import sys; sys.path[:0] = sys.argv[1].split(':'); import xir, vart; print('%d.%d' % sys.version_info[:2])"
        )
        try:
            done = subprocess.run(
                [python, "-c", code, folders], capture_output=True, text=True, timeout=RUNTIME_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failed(f"{python} cannot be run: {error}", take) from error
        if done.returncode:
            raise Failed(f"{python} cannot import xir and vart: {last_line(done.stdout, done.stderr)}", take)
        return f"Python {done.stdout.strip()} imports xir and vart"

    def _compiled(self) -> str:
        make = "compile a model (`trainer compile`) and name its card with FARM_MODEL"
        if self._find_weights is None:
            raise Failed("no model is named", make)
        self._model = weights, card = self._find_weights()
        if "fingerprint" not in card.dpu:
            raise Failed(f"{card.name}@{card.version} is not compiled for a DPU: its card tells no fingerprint", make)
        return f"{card.name}@{card.version}, {weights.name}"

    def _fingerprint(self) -> str:
        """Open the card with the model, unless a worker does so already."""
        assert self._model is not None
        weights, card = self._model
        told = f"{card.dpu['fingerprint']} in the model's card"
        if self._driven is not None:
            return f"{told}; worker {self._driven.worker} has it open"
        self._opened = self._open(weights, card)
        return f"{told} and in the xmodel"

    def _open(self, weights: Path, card: ModelCard) -> str:
        """Open and close the engine; what it said of the canary. Raises Failed."""
        from workers.engines import open_engine

        try:
            engine = open_engine("vart", weights, card, device=self._address)
        except CardQuarantined as error:
            return f"!{error}"
        except EngineBusy as error:
            raise Failed(str(error), "stop what drives the card, or `farm cards drain` it, and check again") from error
        except (BadModel, EngineMissing) as error:
            raise Failed(str(error), "") from error
        try:
            return f"golden pictures answered rightly, batch {engine.spec.batch}"
        finally:
            engine.close()

    def _canary(self) -> str:
        if self._driven is not None:
            if self._driven.canary_at is None:
                raise Failed("its worker has not told of an answer yet", "look at the worker's log")
            return f"answered to worker {self._driven.worker}"
        if self._opened.startswith("!"):
            raise Failed(self._opened[1:], "")
        return self._opened

    @property
    def _address(self) -> str:
        return self._card.bdf if self._card else self._bdf
