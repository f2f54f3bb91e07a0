"""All commands in one list, and the one place where an error becomes a line on stderr and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from farm.cli import cards, evaluating, looking, models, operating, scanning, training
from farm.cli.exits import EXIT_CODES, Exit
from farm.errors import FarmError, NothingToScan

app = typer.Typer(
    name="farm",
    help="Scan video for deepfakes: a folder of videos in; verdicts, masks and a report out.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
SCANNING, LOOKING, OPERATING = "Scan", "Look at results", "Run a farm"

for panel, commands in (
    (SCANNING, (scanning.demo, scanning.scan, scanning.submit, scanning.rescan, scanning.cancel)),
    (LOOKING, (looking.status, looking.results, looking.report, evaluating.evaluate)),
    (OPERATING, (operating.worker, operating.dispatch, operating.flower)),
):
    for command in commands:
        app.command(rich_help_panel=panel, epilog=EXIT_CODES)(command)
app.add_typer(looking.masks, name="masks", rich_help_panel=LOOKING)
app.add_typer(models.models, name="models", rich_help_panel=OPERATING)
app.add_typer(training.train, name="train", rich_help_panel=OPERATING)
app.add_typer(cards.cards, name="cards", rich_help_panel=OPERATING)
app.add_typer(operating.db, name="db", rich_help_panel=OPERATING)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: this process's) and return its exit code."""
    try:
        app(arguments, prog_name="farm")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else Exit.ERROR
    except NothingToScan as error:
        print(f"farm: {error}", file=sys.stderr)
        return Exit.NOTHING
    except FarmError as error:
        print(f"farm: {error}", file=sys.stderr)
        return Exit.ERROR
    except OSError as error:
        # a home or an output that cannot be written; the parts say themselves what they know more of
        where = f": {error.filename}" if error.filename else ""
        print(f"farm: {error.strerror or error}{where}", file=sys.stderr)
        return Exit.ERROR
    return Exit.DONE
