"""Commands for the networks that a farm knows: list, show, register, promote, retire."""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farm.cli.exits import EXIT_CODES
from farm.cli.options import AsJson, Home, opened_farm

if TYPE_CHECKING:
    from farm.jobs.models import RegisteredModel

models = typer.Typer(help="Networks that scans can take; one is promoted.", invoke_without_command=True)

ExactModel = Annotated[str, typer.Argument(metavar="NAME@VERSION", help="As `farm models list` shows it.")]
By = Annotated[str, typer.Option("--by", help="Who says so. Default: your login name and this machine.")]


@models.callback(epilog=EXIT_CODES)
def without_verb(context: typer.Context, home: Home = None) -> None:
    """Networks that scans can take; one is promoted, and taken when none is named. Without a verb: list."""
    if context.invoked_subcommand is None:
        list_registered(home)
    elif home is not None:
        raise typer.BadParameter(f"write --home after the verb: farm models {context.invoked_subcommand} --home {home}")


@models.command("list", epilog=EXIT_CODES)
def list_registered(home: Home = None, as_json: AsJson = False) -> None:
    """Every registered model, whether it is promoted or retired, and what it is worth."""
    from farm.cli.printing import console
    from farm.cli.tables import models_table
    from farm.jobs.models import list_models

    with opened_farm(home) as farm:
        found = list_models(farm)
    if as_json:
        print(json.dumps([_facts(model) for model in found], ensure_ascii=False))
        return
    console().print(models_table(found) if found else "no model is registered yet")


@models.command(epilog=EXIT_CODES)
def show(
    wanted: Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="A name alone: its latest version.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """One model: its state, what it was trained on, its thresholds and figures, and how often it was used."""
    from farm.cli.printing import console
    from farm.cli.tables import facts_table
    from farm.jobs.models import model_use, named_model

    with opened_farm(home) as farm:
        model = named_model(farm, wanted)
        use = asdict(model_use(farm, model.id))
    card = asdict(model.card)
    if as_json:
        print(json.dumps({**_facts(model), **use, "card": card}, ensure_ascii=False))
        return
    card["training"].pop("config", None)
    console().print(
        facts_table({name: value for name, value in _facts(model).items() if name not in card} | use | card)
    )
    print("the configuration that it was trained with: --json", file=sys.stderr)


@models.command(epilog=EXIT_CODES)
def register(
    card: Annotated[Path, typer.Argument(metavar="CARD", help="Model card with its weights beside it.", exists=True)],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make a network known to the farm, as a candidate. `farm scan --model CARD` does that too."""
    from farm.jobs.models import load_model, register_model

    with opened_farm(home) as farm:
        model = load_model(farm, register_model(farm, card))
    print(json.dumps(_facts(model)) if as_json else f"{model.named} is registered; its state: {model.state}")


@models.command(epilog=EXIT_CODES)
def promote(wanted: ExactModel, by: By = "", home: Home = None, as_json: AsJson = False) -> None:
    """Let scans take this model when none is named. The one promoted before is a candidate again."""
    from farm.jobs.promotion import promote as use_case

    with opened_farm(home) as farm:
        promotion = use_case(farm, wanted, by or _login())
        pinned = farm.settings.model
    before = promotion.before.named if promotion.before else None
    if as_json:
        print(json.dumps({**_facts(promotion.model), "before": before, "changed": promotion.changed}))
    else:
        instead = f", in place of {before}" if before else ""
        print(f"{wanted} is promoted{instead}" if promotion.changed else f"{wanted} was promoted already")
    if pinned:
        print(f"FARM_MODEL is {pinned!r} here and goes before the promoted model", file=sys.stderr)


@models.command(epilog=EXIT_CODES)
def retire(wanted: ExactModel, by: By = "", home: Home = None, as_json: AsJson = False) -> None:
    """Let no new scan take this model; what it found stays. The promoted one is refused: promote another first."""
    from farm.jobs.promotion import retire as use_case

    with opened_farm(home) as farm:
        model = use_case(farm, wanted, by or _login())
    print(json.dumps(_facts(model)) if as_json else f"{wanted} is retired; promoting it takes it back")


def _facts(model: RegisteredModel) -> dict[str, Any]:
    moved = {"state": model.state, "state_by": model.state_by, "state_at": model.state_at}
    card = {name: getattr(model.card, name) for name in ("name", "version", "sha256", "demonstration")}
    return {"id": model.id, "model": model.named, **card, **moved, "created_at": model.created_at}


def _login() -> str:
    """Who runs this command, for the record; a number where the account has no name."""
    import pwd

    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"
