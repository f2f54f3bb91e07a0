"""Commands about accelerator cards: list, check, drain, resume."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli.exits import EXIT_CODES
from farm.cli.options import AsJson, Home, opened_farm

if TYPE_CHECKING:
    from farm.jobs.cards import CardStatus

cards = typer.Typer(help="Accelerator cards: how they are, and who may use them.", no_args_is_help=True)

CardName = Annotated[
    str, typer.Argument(metavar="CARD", help="PCI address, HOST/ADDRESS where several hosts have it, or serial number.")
]


@cards.command("list", epilog=EXIT_CODES)
def list_them(home: Home = None, as_json: AsJson = False) -> None:
    """Every card that a worker has driven: how warm, in which state and why, by whom driven, crops done."""
    from farm.cli.printing import console, printable, table
    from farm.jobs.cards import list_cards

    with opened_farm(home) as farm:
        found = list_cards(farm)
    if as_json:
        print(json.dumps([asdict(card) for card in found]))
    elif found:
        columns = ("card", "serial", "shell", "C", "W", "state", "worker", "last canary", "crops")
        console().print(table(None, columns, (_line(card) for card in found)))
        for card in found:
            if card.reason:
                print(f"{card.host}/{card.bdf} is {card.state}: {printable(card.reason)}")
    else:
        print("no card yet: a card is listed once its worker started", file=sys.stderr)


def _line(card: CardStatus) -> tuple[object, ...]:
    canary = None if card.canary_at is None else f"{datetime.fromtimestamp(card.canary_at, UTC):%Y-%m-%d %H:%M:%S}"
    warm, power = (None if value is None else f"{value:g}" for value in (card.celsius, card.watts))
    figures = (card.serial, card.shell, warm, power, card.state, card.worker, canary, card.crops_done)
    return (f"{card.host}/{card.bdf}", *figures)


@cards.command(epilog=EXIT_CODES)
def check(
    card: Annotated[
        str, typer.Argument(metavar="[ADDRESS]", help="PCI address. Default: every card of this host.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Walk through the set-up of this host's cards, from lspci to the golden pictures; says the next step for what fails."""
    command = [
        sys.executable,
        "-m",
        "workers.cards",
        "check",
        *([card] if card else []),
        *(["--json"] if as_json else []),
    ]
    sys.stdout.flush()
    os.execv(command[0], command)


@cards.command(epilog=EXIT_CODES)
def drain(
    card: CardName,
    why: Annotated[str, typer.Option("--why", help="What others see as the reason.")] = "drained by hand",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Let a card take no new work, from any machine; its worker finishes what it holds, then frees the card."""
    from farm.jobs.cards import drain as drain_card

    with opened_farm(home) as farm:
        _say(drain_card(farm, card, why), as_json=as_json)


@cards.command(epilog=EXIT_CODES)
def resume(card: CardName, home: Home = None, as_json: AsJson = False) -> None:
    """Let a drained or quarantined card work again; it has to answer the golden pictures first."""
    from farm.jobs.cards import resume as resume_card

    with opened_farm(home) as farm:
        _say(resume_card(farm, card), as_json=as_json)


def _say(card: CardStatus, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(card)))
        return
    obeys = "its worker obeys within seconds" if card.worker else "no worker drives it now"
    print(f"card {card.host}/{card.bdf} is {card.state}{f' ({card.reason})' if card.reason else ''}; {obeys}")
