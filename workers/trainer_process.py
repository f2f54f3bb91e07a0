"""The trainer as a child process: its events, line by line, and what its end means. Knows neither rows nor objects nor torch."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from farm.errors import BadInput, EngineMissing, Retryable

log = logging.getLogger(__name__)

TRAINER = (sys.executable, "-c", "from trainer.cli import main; main()")
"""The command `trainer` of the environment that this worker runs in."""

GRACE_SECONDS = 60.0
"""After SIGTERM the trainer has this long to save and end by itself."""

LAST_LINES = 12
_DIE_WITH_PARENT = 1
"""linux/prctl.h"""
_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


class TrainerDied(Retryable):
    """The trainer was killed or crashed: from its last checkpoint another attempt can go on."""


class TrainerProcess:
    """One `trainer` command. Inside a `with` block; whatever still runs at its end is stopped, by force if need be.

    The child leads a process group of its own and dies with the thread that started it, kill -9 of this process included.
    """

    def __init__(self, arguments: list[str], folder: Path) -> None:
        """Starts `trainer ARGUMENTS` in this folder, where its standard error goes to `stderr.log`."""
        self.verb = arguments[0]
        self._errors = folder / "stderr.log"
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        with self._errors.open("wb") as errors:
            self._child = subprocess.Popen(
                [*TRAINER, *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                errors="replace",
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  one system call, loaded before
            )
        self._reader = threading.Thread(target=self._read, name=f"trainer-{self.verb}", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child.poll() is None:
            self.stop()
        try:
            self._child.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("trainer %s did not end within %.0f s of SIGTERM and is killed", self.verb, GRACE_SECONDS)
        try:
            os.killpg(self._child.pid, signal.SIGKILL)  # the rest of its group: loaders of a trainer that died
        except ProcessLookupError:
            pass
        self._child.wait()
        self._reader.join()
        if self._child.stdout is not None:
            self._child.stdout.close()

    def stop(self) -> None:
        """Ask the trainer to save and end."""
        self._child.terminate()

    def lines(self, every_seconds: float) -> Iterator[str | None]:
        """Lines of standard output as they come, and None whenever none came for so long; ends with the process's output."""
        while True:
            try:
                line = self._lines.get(timeout=every_seconds)
            except queue.Empty:
                yield None
                continue
            if line is None:
                return
            yield line

    def ended(self) -> None:
        """Wait for the end and judge it. Raises BadInput with the trainer's complaint, TrainerDied where it was killed or crashed."""
        status = self._child.wait()
        if status == 0:
            return
        said = [line for line in self._errors.read_text(errors="replace").splitlines() if line.strip()]
        if status < 0:
            name = signal.Signals(-status).name
            raise TrainerDied(f"trainer {self.verb} was killed by {name}: " + _joined(said))
        complaints = [number for number, line in enumerate(said) if line.startswith("trainer: ")]
        if complaints:  # what torch says of a failed write has several lines
            raise BadInput(_joined(said[complaints[-1] :]).removeprefix("trainer: "))
        if status == 2:
            raise BadInput(f"trainer {self.verb} was called wrongly: " + _joined(said))
        raise TrainerDied(f"trainer {self.verb} ended with status {status}: " + _joined(said))

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)


def event_of(line: str) -> dict[str, Any] | None:
    """The event that a line of `--progress` tells; None for any other line."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def check_trainer(device: str) -> None:
    """Return if networks can be trained here on this device. Raises EngineMissing that says what to install, BadInput without a device."""
    if not device:
        raise BadInput("a train worker needs a device: --device cuda:0 (or --device cpu, if you mean it)")
    for name in ("trainer", "torch"):
        if find_spec(name) is None:
            raise EngineMissing(
                f"{name} is not installed here: install the farm with its extra `trainer` to train on it"
            )
    asked = "import sys, torch; torch.empty(1, device=sys.argv[1])"
    tried = subprocess.run([sys.executable, "-c", asked, device], capture_output=True, text=True, check=False)
    if tried.returncode:
        raise EngineMissing(f"torch cannot use the device {device!r}: {_joined(tried.stderr.splitlines()[-1:])}")


def _joined(lines: list[str]) -> str:
    return " | ".join(line.strip() for line in lines[-LAST_LINES:]) or "it said nothing"


def _die_with_parent() -> None:
    if _PRCTL is not None:
        _PRCTL(_DIE_WITH_PARENT, signal.SIGKILL)
