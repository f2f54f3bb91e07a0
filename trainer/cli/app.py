"""The Typer app that every verb of `trainer` hangs on."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="Make, measure and export the farm's network. Exit codes: 0 done, 1 failed with a reason, 2 wrong usage, 130 stopped by Ctrl-C.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
