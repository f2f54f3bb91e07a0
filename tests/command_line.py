"""The command `farm` as a user runs it: in a process of its own, in a marked environment, so that what it leaves behind is seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FARM = [sys.executable, "-c", "from farm.cli import main; main()"]


@dataclass(frozen=True)
class Ran:
    """One command line that has ended."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> dict[str, Any]:
        return json.loads(self.out.splitlines()[-1])


@dataclass(frozen=True)
class CommandLine:
    """Runs `farm` as a user would, in an environment of its own that marks every process it leaves behind."""

    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def environment(self, **extra: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("FARM_", "AWS_"))}
        return {**kept, "FARM_TEST_MARK": self.mark, **extra}

    def start(
        self, *arguments: str | Path, preexec_fn: Callable[[], None] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        environment = self.environment(**options.pop("env", {}))
        return subprocess.Popen(
            [*FARM, *map(os.fspath, arguments)],
            cwd=self.folder,
            env=environment,
            start_new_session=True,
            preexec_fn=preexec_fn,  # noqa: PLW1509
            **pipes,
            **options,
        )

    def run(self, *arguments: str | Path, timeout: float = 150, **options: Any) -> Ran:
        process = self.start(*arguments, **options)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"farm {arguments} took longer than {timeout} s:\n{out}\n{err}") from None
        return Ran(process.returncode, out, err)

    def left_behind(self) -> list[str]:
        """Command lines of the processes that carry this environment's mark."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if f"FARM_TEST_MARK={self.mark}".encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found


@dataclass(frozen=True)
class Scanned:
    """What a scan said and what the farm says of it."""

    line: CommandLine
    home: Path
    ran: Ran
    results: list[dict[str, Any]]

    @property
    def summary(self) -> dict[str, Any]:
        return self.ran.last_line

    def result(self, name: str) -> dict[str, Any]:
        (found,) = [row for row in self.results if row["name"] == name]
        return found


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Poll until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
