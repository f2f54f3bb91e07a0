"""Work for other processes that goes wrong in every way; a module of its own, so that a spawned process can import it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from farm.errors import StorageAway


def doubled(number: int) -> int:
    """Twice the number; 13 kills the process, 7 is no number to work on."""
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 7:
        raise ValueError("seven")
    return 2 * number


def dies_once(mark: str) -> str:
    """Dies where the file is not there yet, and leaves it."""
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def writes_nowhere(number: int) -> int:
    """The disk is full at number 3."""
    if number == 3:
        raise StorageAway("the disk is full")
    return number
