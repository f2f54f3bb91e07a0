"""The `trainer` command: one module per stage. Knows how to ask and to print, nothing else."""

from __future__ import annotations

import typer

from farm.errors import FarmError
from trainer.cli import (
    data,  # noqa: F401  a module's import adds its verbs
    demo,  # noqa: F401
    evaluating,  # noqa: F401
    exporting,  # noqa: F401
    preparing,  # noqa: F401
    quantizing,  # noqa: F401
    training,  # noqa: F401
)
from trainer.cli.app import app


def main() -> None:
    """Entry point of `trainer`."""
    try:
        app()
    except FarmError as error:
        typer.secho(f"trainer: {error}", fg=typer.colors.RED, err=True)
        raise SystemExit(1) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        typer.secho(
            f"trainer: {where}{error.strerror or error}; what was finished before stays", fg=typer.colors.RED, err=True
        )
        raise SystemExit(1) from error
    except ModuleNotFoundError as error:
        # The farm runs without torch, and `trainer --help` with it; only the stages need what training is made of.
        typer.secho(
            f"trainer: {error.name} is not installed; run `make install-trainer`", fg=typer.colors.RED, err=True
        )
        raise SystemExit(1) from error
