"""`python -m workers.cards supervise | check`: what `farm worker --all-cards` and `farm cards check` start."""

from __future__ import annotations

import argparse
import json
import logging
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from farm.contracts import ENGINE_NAMES, ModelCard
from farm.db.models import CardState
from farm.embedded import CANNOT_START, EXIT_CANNOT_START
from farm.errors import FarmError, Fatal
from farm.farm import Farm
from farm.jobs.cards import CardStatus, list_cards
from farm.jobs.models import find_model, load_model
from farm.settings import Settings, settings
from workers.cards.check import Check, Model, Step
from workers.cards.find import find_cards, full_address
from workers.cards.supervise import supervise


def main(argv: list[str] | None = None) -> int:
    """The exit status: 0, 1 where a check failed, EXIT_CANNOT_START where no card can be looked for."""
    parser = argparse.ArgumentParser(prog="workers.cards")
    commands = parser.add_subparsers(dest="command", required=True)
    supervised = commands.add_parser("supervise", help="a worker per card; further options go to the workers")
    supervised.add_argument("--engine", choices=ENGINE_NAMES, default="vart")
    check = commands.add_parser("check", help="walk through a card's set-up")
    check.add_argument("bdf", nargs="?", default="")
    check.add_argument("--json", action="store_true")
    chosen, rest = parser.parse_known_args(argv)
    if chosen.command == "supervise":
        return run_supervisor(chosen.engine, rest)
    if rest:
        parser.error(f"unknown: {' '.join(rest)}")
    return run_check(chosen.bdf, as_json=chosen.json)


def run_supervisor(engine: str, options: list[str]) -> int:
    """Supervise until told to end. `engine` is the workers' own."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        return supervise(settings().model_copy(update={"engine": engine}), options)
    except Fatal as error:
        sys.stderr.write(f"{CANNOT_START}{error}\n")
        return EXIT_CANNOT_START


def run_check(bdf: str, *, as_json: bool) -> int:
    """Check one card, or every card of this host."""
    walked: dict[str, list[Step]] = {}
    try:
        with ExitStack() as stack:
            driven, find_weights = farm_parts(settings(), stack)
            for each in [full_address(bdf)] if bdf else [card.bdf for card in find_cards(settings())]:
                check = Check(settings(), each, driven=driven.get(each), find_weights=find_weights)
                walked[each] = list(told(each, check, quiet=as_json))
    except FarmError as error:
        sys.stderr.write(f"farm: {error}\n")
        return 1
    if not walked:
        sys.stderr.write(
            "farm: no VCK5000 on this host's bus: seat the card, plug its power cables, switch the host off and on\n"
        )
    if as_json:
        steps = {each: [asdict(step) for step in steps] for each, steps in walked.items()}
        sys.stdout.write(json.dumps({"cards": steps}) + "\n")
    return 0 if walked and all(steps[-1].ok for steps in walked.values()) else 1


def told(bdf: str, check: Check, *, quiet: bool) -> list[Step]:
    """Walk, saying each step as it is done."""
    steps = []
    if not quiet:
        sys.stdout.write(f"card {bdf}\n")
    for step in check.walk():
        steps.append(step)
        if not quiet:
            sys.stdout.write(f"  {step.name:<12} {'OK  ' if step.ok else 'FAIL'} {step.said}\n")
            sys.stdout.write(f"{'':<15}next: {step.remedy}\n" if step.remedy else "")
            sys.stdout.flush()
    return steps


def farm_parts(chosen: Settings, stack: ExitStack) -> tuple[dict[str, CardStatus], Callable[[], Model] | None]:
    """Which cards of this host a worker has open, and how the model is found. A card can be checked before there is a farm."""
    path = Path(chosen.model)
    at_path = (lambda: from_path(path)) if path.suffix == ".json" else None
    if not chosen.database_url:
        return {}, at_path
    farm = Farm.open(chosen)
    stack.callback(farm.close)
    # a worker gives a card back that is drained or quarantined: it can be tried
    has_it = (CardState.READY, CardState.HOT)
    driven = {card.bdf: card for card in list_cards(farm, socket.gethostname()) if card.worker and card.state in has_it}

    def registered() -> Model:
        model = load_model(farm, find_model(farm, chosen.model))
        return stack.enter_context(farm.store.get_file(model.object_key)), model.card

    return driven, at_path or (registered if chosen.model else None)


def from_path(path: Path) -> Model:
    """The model whose card stands at this path. Raises BadModel."""
    card = ModelCard.load(path)
    return path.with_name(card.weights), card


if __name__ == "__main__":
    sys.exit(main())
