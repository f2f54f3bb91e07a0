"""What the exit codes of `farm` mean. A video that could not be read is a verdict, not a failure of the command."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command."""

    DONE = 0
    """It did what was asked, whatever the verdicts are."""
    ERROR = 1
    """The farm could not do it; one line on stderr says why and what to do."""
    USAGE = 2
    """The command line is wrong."""
    NOTHING = 3
    """There was nothing to scan."""
    INTERRUPTED = 130
    """Ctrl-C; what was done is kept."""


EXIT_CODES = "Exit codes: 0 done (whatever the verdicts), 1 the farm could not do it, 2 usage, 3 nothing to scan, 130 interrupted."
