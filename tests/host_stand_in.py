"""A host with cards that are not there: `lspci` and `xbutil` in a folder of their own, and a handle to plug, pull and heat cards."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from stand_in import host_programs


@dataclass
class StandInHost:
    """The programs say what `cards` holds at the moment they are run."""

    folder: Path
    cards: dict[str, dict[str, Any]] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("lspci", "xbutil"):
            program = self.folder / name
            program.write_text(
                f'#!/bin/sh\nexec "{sys.executable}" -I "{host_programs.__file__}" "{self._state}" {name} "$@"\n'
            )
            program.chmod(0o755)
        self.write()

    @property
    def _state(self) -> Path:
        return self.folder / "host.json"

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of a farm that uses these programs."""
        return {"lspci": str(self.folder / "lspci"), "xbutil": str(self.folder / "xbutil")}

    def plug(self, slot: str = "0000:3b:00", **card: Any) -> str:
        """Put a card in, or change one; the address of its user function."""
        self.cards[slot] = {**self.cards.get(slot, {}), **card}
        self.write()
        return f"{slot}.1"

    def pull(self, slot: str = "0000:3b:00") -> None:
        del self.cards[slot]
        self.write()

    def say(self, **others: Any) -> None:
        """Change what is not a card's: xrt, drivers, stranger."""
        self.others |= others
        self.write()

    def write(self) -> None:
        """In one step: a program that runs meanwhile reads the old or the new."""
        fresh = self._state.with_suffix(".new")
        fresh.write_text(
            json.dumps({"cards": [{"slot": slot, **card} for slot, card in self.cards.items()], **self.others})
        )
        fresh.replace(self._state)

    @property
    def was_validated(self) -> bool:
        return (self.folder / "validated").exists()


@pytest.fixture
def stand_in_host(tmp_path: Path) -> StandInHost:
    """A host without cards."""
    folder = tmp_path / "host"
    folder.mkdir()
    return StandInHost(folder)
