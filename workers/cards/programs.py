"""Runs the host's programs that know of cards, and says what to do where one is missing, fails or hangs."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from farm.errors import EngineBusy, EngineMissing


def run_program(
    program: str, arguments: Sequence[str], *, seconds: float, setting: str, remedy: str
) -> tuple[int, str, str]:
    """Exit status, stdout and stderr. Raises EngineMissing where the program is not there, EngineBusy where it hangs."""
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, errors="replace", timeout=seconds, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise EngineBusy(
            f"{program} {' '.join(arguments[:3])} did not answer within {seconds:g} s: the card's driver may hang, look at dmesg"
        ) from error
    except OSError as error:
        raise EngineMissing(
            f"{program} cannot be run ({error.strerror}): {remedy}, or set {setting} to its path"
        ) from error
    return done.returncode, done.stdout, done.stderr


def last_line(*texts: str) -> str:
    """The last line that says something, for an error."""
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no word"
