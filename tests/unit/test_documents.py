"""What the documents tell people to type is known to the commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from farm.cli.app import app as farm
from trainer.cli.app import app as trainer

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"^ {4}(?:\$ )?(?:\w+=\S+ )*(?:\.venv/bin/)?((?:farm|trainer) .*)$", re.MULTILINE)


def typed() -> list[str]:
    text = "".join((ROOT / name).read_text() for name in ("README.md", "docs/vck5000.md"))
    return sorted(set(LINE.findall(text)))


@pytest.mark.parametrize("line", typed())
def test_every_command_in_the_documents_exists_with_its_options(line: str) -> None:
    program, *words = shlex.split(line, comments=True)
    command: Any = typer.main.get_command({"farm": farm, "trainer": trainer}[program])
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known


def test_there_are_commands_to_look_at() -> None:
    assert len(typed()) > 30
