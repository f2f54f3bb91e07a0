"""The command `farm`: a thin door that reads arguments, calls a use case and prints."""

from __future__ import annotations


def main() -> None:
    """Entry point of the console script `farm`."""
    from farm.cli.app import run

    raise SystemExit(run())
