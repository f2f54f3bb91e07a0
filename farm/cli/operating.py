"""Commands for who runs a farm: workers, the dispatcher, Flower, the database."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from farm.cli.exits import EXIT_CODES
from farm.cli.options import Home, opened_farm


class Queue(StrEnum):
    """What a worker can work on."""

    INFER = "infer"
    SPLIT = "split"
    TRAIN = "train"


def worker(
    queue: Annotated[
        Queue | None,
        typer.Option(
            "--queue",
            help="split: decode and find faces (CPU). infer: run the network. train: train networks. "
            "May be left out with --card and --all-cards, which mean infer.",
        ),
    ] = None,
    card: Annotated[str, typer.Option("--card", help="The one card this worker is pinned to, as PCI address.")] = "",
    all_cards: Annotated[
        bool, typer.Option("--all-cards", help="One worker per VCK5000 of this host; cards may come and go.")
    ] = False,
    engine: Annotated[
        str,
        typer.Option(
            "--engine", help="The one engine of an infer worker. Default: FARM_ENGINE; vart with --all-cards."
        ),
    ] = "",
    device: Annotated[
        str, typer.Option("--device", help="Where a train worker trains: cuda:0, or cpu. It has to be named.")
    ] = "",
    concurrency: Annotated[
        int, typer.Option("--concurrency", help="Tasks at once. 0: what suits the queue.", min=0)
    ] = 0,
    events: Annotated[bool, typer.Option("--events/--no-events", help="Tell Flower what happens.")] = True,
) -> None:
    """Run one worker of the farm that FARM_* names, until SIGTERM; it finishes what it holds."""
    queue = queue or (Queue.INFER if card or all_cards else None)
    if queue is None:
        raise typer.BadParameter("name the --queue to work on: split, infer or train")
    if (card or all_cards or engine) and queue is not Queue.INFER:
        raise typer.BadParameter(f"a {queue.value} worker drives no card and runs no engine")
    if card and all_cards:
        raise typer.BadParameter("--card names one card, --all-cards takes every one")
    if all_cards:
        command = [sys.executable, "-m", "workers.cards", "supervise", "--engine", engine or "vart"]
    else:
        command = [sys.executable, "-m", "workers.app", queue.value, *(["--engine", engine] if engine else [])]
    command += ["--card", card] if card else []
    command += ["--device", device] if device else []
    command += ["--concurrency", str(concurrency)] if concurrency else []
    command += ["--events"] if events else []
    sys.stdout.flush()
    os.execv(command[0], command)


def dispatch() -> None:
    """Ring for rows that are ready, and again for rows whose worker died. One per farm; a second does no harm."""
    import logging
    import signal

    from farm.jobs.dispatch import Dispatcher
    from farm.jobs.metrics import serve_metrics
    from farm.queue import Doorbell, make_app

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with opened_farm(None) as farm:
        dispatcher = Dispatcher(farm, Doorbell(make_app(farm.settings.redis_url)))
        for stop in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stop, lambda *_: dispatcher.stop())
        serve_metrics(farm)
        dispatcher.run()


def flower(
    address: Annotated[
        str, typer.Option("--address", help="Where to listen. Anything but this machine asks for a password.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535)] = 5555,
    home: Home = None,
) -> None:
    """Show workers and tasks in Flower. FARM_FLOWER_PASSWORD is the password of its user `farm`; without one it only shows."""
    from farm.cli.flower import serve

    serve(home, address, port)


db = typer.Typer(help="Make or mend the farm's tables.", no_args_is_help=True)


@db.command(epilog=EXIT_CODES)
def upgrade(home: Home = None) -> None:
    """Bring the schema up to this code. Run it once before a new version's workers start."""
    from farm.db.session import open_engine
    from farm.db.session import upgrade as migrate

    engine = open_engine(_database_url(home))
    try:
        migrate(engine)
    finally:
        engine.dispose()
    print("the schema is up to date")


@db.command("status", epilog=EXIT_CODES)
def schema_status(home: Home = None) -> None:
    """Say whether the schema is the one this code was written for; exit code 1 where it is not."""
    from farm.db.session import check_schema, open_engine

    engine = open_engine(_database_url(home))
    try:
        check_schema(engine)
    finally:
        engine.dispose()
    print("the schema is up to date")


def _database_url(home: Path | None) -> str:
    from farm.cli.options import home_of
    from farm.embedded import embedded_settings
    from farm.settings import settings

    folder = home_of(home)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return settings().database_url if folder is None else embedded_settings(folder).database_url
