"""`farm models` and what follows from it, as a user runs it: promote another network, scan, see what a rescan changed, retire."""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, Ran

from farm.cli import app as door
from farm.contracts import ModelCard
from farm.jobs.models import shipped_card


@pytest.fixture
def accuser(tmp_path: Path) -> Path:
    """The shipped weights with thresholds that call everything FAKE, as another version."""
    source = shipped_card()
    card = ModelCard.load(source)
    shutil.copy(source.parent / card.weights, tmp_path)
    path = tmp_path / "accuser.json"
    path.write_text(replace(card, version="accuser", threshold=0.0, real_below=0.0).to_json())
    return path


def test_a_promoted_network_scans_and_a_rescan_with_it_shows_what_changed(
    line: CommandLine, tmp_path: Path, accuser: Path, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, clip = tmp_path / "home", str(clips / "portrait.mp4")

    def farm(*arguments: str) -> Ran:
        """A command that only looks or writes rows, in this process: it costs a tenth."""
        code = door.run([*arguments, "--home", str(home)])
        return Ran(code, *capsys.readouterr())

    def results(scan: int) -> list[dict[str, Any]]:
        return json.loads(farm("results", str(scan), "--format", "json").out)

    first = line.run("scan", clip, clips / "whole.mp4", "--home", home, "--json").last_line["scan"]
    shipped = results(first)[0]["model"]
    new = f"{shipped.partition('@')[0]}@accuser"
    assert "candidate" in farm("models", "register", str(accuser)).out
    assert farm("models", "promote", new, "--json", "--by", "ada").last_line["state_by"] == "ada"

    as_before = farm("rescan", str(first))
    assert f"with {shipped}" in as_before.out and new in as_before.err, "it says that another one is promoted by now"
    farm("cancel", "2")
    plain = farm("submit", clip, "--json").last_line["scan"]
    again = farm("rescan", str(first), "--model", new, "--json").last_line["scan"]
    summary = line.run("scan", "--resume", "--home", home, "--json").last_line

    assert [(row["model"], row["verdict"]) for row in results(plain)] == [(new, "FAKE")], "nobody named it"
    changes = [("UNCERTAIN", "FAKE", 1), ("NO_FACE", "NO_FACE", 1)]
    assert [tuple(each.values()) for each in summary["changes"]] == changes
    assert (summary["scan"], summary["rescan_of"]) == (again, first)
    against = ("results", str(again), "--against", str(first))
    rows = list(csv.DictReader(io.StringIO(farm(*against, "--format", "csv").out)))
    assert [(row["name"], row["verdict_before"], row["verdict_after"]) for row in rows] == [
        ("portrait.mp4", "UNCERTAIN", "FAKE"),
        ("whole.mp4", "NO_FACE", "NO_FACE"),
    ]
    assert (rows[0]["model_before"], rows[0]["model_after"]) == (shipped, new)
    assert "1 of 2 verdicts changed: 1 UNCERTAIN -> FAKE" in farm(*against).out
    assert json.loads(farm(*against, "--by", "change", "--format", "json").out) == summary["changes"]

    refused = farm("models", "retire", new)
    assert refused.code == 1 and "promote another first" in refused.err
    assert farm("models", "retire", shipped, "--json").last_line["state"] == "retired"
    assert f"{shipped} is retired" in farm("submit", clip, "--model", shipped).err
    assert json.loads(farm("models", "show", shipped, "--json").out)["scans"] == 2
    assert shipped in farm("models").out and "retired" in farm("models", "show", shipped).out
    listed = json.loads(farm("models", "list", "--json").out)
    assert {each["model"]: each["state"] for each in listed} == {shipped: "retired", new: "promoted"}
    assert {row["model"] for row in results(first)} == {shipped}
