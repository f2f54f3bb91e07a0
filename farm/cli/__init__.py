"""The command `farm`: a thin door. It reads arguments, calls a use case, prints; what happens is in farm/jobs, farm/embedded and farm/report."""

from __future__ import annotations


def main() -> None:
    """Entry point of the console script `farm`."""
    from farm.cli.app import run

    raise SystemExit(run())
