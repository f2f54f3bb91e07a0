"""One embedded farm, started by the command line itself and shared by most end-to-end tests: two scans take most of their time."""

from __future__ import annotations

import json
from pathlib import Path

import bad_clips
import pytest
from command_line import CommandLine, Scanned

from farm.samples import write_samples


@pytest.fixture
def line(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The farm's own sample clips, and every kind of bad input beside them."""
    folder = tmp_path_factory.mktemp("clips")
    write_samples(folder)
    bad_clips.write(folder)
    return folder


@pytest.fixture(scope="session")
def scanned(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Scanned:
    """One scan of the folder of clips, with a missing path named beside it."""
    folder = tmp_path_factory.mktemp("farm")
    line, home = CommandLine(folder), folder / "home"
    ran = line.run("scan", clips, clips / "missing.mp4", "--home", home, "--json", "--dataset", "samples")
    assert ran.code == 0, ran.err
    told = line.run("results", str(ran.last_line["scan"]), "--home", home, "--format", "json")
    assert told.code == 0, told.err
    return Scanned(line, home, ran, json.loads(told.out))
