"""Which cards are on this host's bus, by `lspci`. Knows nothing of XRT, SQL or engines.

A VCK5000 shows two functions: .0 for management (driver xclmgmt), .1 for users (driver xocl), the one that runtimes open and that
names the card here. Vendor and device ids as the driver's own table has them (Xilinx/XRT, xocl/devices.h).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from farm.errors import EngineBusy, EngineMissing
from farm.settings import Settings
from workers.cards.programs import last_line, run_program

VENDOR = "10ee"
MANAGEMENT_IDS = ("5044", "5048")
USER_IDS = ("5045", "5049")
"""The first of each is an engineering sample's."""
ADDRESS = re.compile(r"(?:(?P<domain>[0-9a-f]{4}):)?(?P<slot>[0-9a-f]{2}:[0-9a-f]{2})\.(?P<function>[0-7])")


@dataclass(frozen=True, slots=True)
class Function:
    """One PCI function of a card."""

    bdf: str
    #: vendor's device id, hexadecimal
    device: str
    #: the kernel driver bound to it; empty: none
    driver: str


@dataclass(frozen=True, slots=True)
class FoundCard:
    """One card on the bus; a virtual machine or container may see only one of its functions."""

    user: Function | None
    management: Function | None

    @property
    def bdf(self) -> str:
        """The card's address: its user function's."""
        function = self.user or self.management
        assert function is not None
        return function.bdf

    @property
    def functions(self) -> tuple[Function, ...]:
        return tuple(function for function in (self.management, self.user) if function)


def find_cards(chosen: Settings) -> list[FoundCard]:
    """The VCK5000 cards of this host, by address. Raises EngineMissing where lspci cannot be run or fails, EngineBusy where it hangs."""
    status, out, err = run_program(
        chosen.lspci,
        ["-D", "-vmm", "-n", "-k", "-d", f"{VENDOR}:"],
        seconds=chosen.card_program_seconds,
        setting="FARM_LSPCI",
        remedy="install pciutils",
    )
    if status:
        raise EngineMissing(
            f"{chosen.lspci} failed with status {status} ({last_line(out, err)}): is /sys/bus/pci there?"
        )
    slots: dict[str, list[Function]] = {}
    for function in _functions(out):
        slots.setdefault(function.bdf.rpartition(".")[0], []).append(function)
    cards = [FoundCard(_one(found, USER_IDS), _one(found, MANAGEMENT_IDS)) for _, found in sorted(slots.items())]
    return [card for card in cards if card.functions]


def find_card(cards: list[FoundCard], bdf: str) -> FoundCard | None:
    """The card that has a function of this address."""
    wanted = full_address(bdf)
    return next((card for card in cards if any(function.bdf == wanted for function in card.functions)), None)


def card_address(chosen: Settings, name: str) -> str:
    """The address of the card that `name` means, any of its functions in any form; the name itself where the bus cannot tell."""
    if not is_address(name):
        return name
    try:
        found = find_card(find_cards(chosen), name)
    except (EngineMissing, EngineBusy):
        found = None  # a container may have no lspci; whether the card is there shows when it is opened
    return found.bdf if found else full_address(name)


def card_of(card: str, engine: str, vart_device: str) -> str:
    """The card that a worker drives; empty for one that computes on the processor."""
    return card or (vart_device if engine == "vart" else "")


def full_address(name: str) -> str:
    """A PCI address in its full form (0000:3b:00.1); any other name of a card as it is."""
    found = ADDRESS.fullmatch(name.lower())
    return f"{found['domain'] or '0000'}:{found['slot']}.{found['function']}" if found else name


def is_address(name: str) -> bool:
    """Whether this is a PCI address, and not the name of a card that is on no bus."""
    return ADDRESS.fullmatch(name.lower()) is not None


def _functions(listed: str) -> Iterator[Function]:
    """The functions in `lspci -vmm` output: blocks of `Key:<tab>value` lines with an empty line between them."""
    for block in listed.split("\n\n"):
        fields = dict(line.split(":\t", 1) for line in block.splitlines() if ":\t" in line)
        if "Slot" in fields and "Device" in fields:
            yield Function(full_address(fields["Slot"]), fields["Device"].lower(), fields.get("Driver", ""))


def _one(functions: list[Function], ids: tuple[str, ...]) -> Function | None:
    return next((function for function in functions if function.device in ids), None)
