"""`farm train` as a user runs it: in an embedded farm, to the registered network, and read back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command_line import CommandLine
from model_cards import model_card
from trainer_stand_in import write_stand_in

ROOT = Path(__file__).parents[2]
CONFIG = 'epochs = 2\nseconds = 0.01\n[[data]]\nmanifest = "dataset:faces/manifest.parquet"\n'


@pytest.fixture
def line(tmp_path):
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "manifest.parquet").write_bytes(b"rows")
    (tmp_path / "net.toml").write_text(CONFIG)
    line = CommandLine(tmp_path)
    yield line
    assert line.left_behind() == []


def test_a_job_is_trained_in_an_embedded_farm_and_read_back(line, tmp_path):
    stand_in = write_stand_in(tmp_path / "stand-in", model_card(name="trained", weights="net.onnx").to_json())
    environment = {
        "PYTHONPATH": os.pathsep.join([str(stand_in), str(ROOT)]),
        "FARM_TRAINING_FOLDER": str(tmp_path / "training"),
    }
    submit = ["train", "submit", "net.toml", "--dataset", "faces", "--wait-on", "cpu", "--home", "home", "--json"]
    ran = line.run(*submit, env=environment)

    assert ran.code == 0, ran.err
    assert (ran.last_line["state"], ran.last_line["epoch"], ran.last_line["model"]) == ("done", 2, "trained@1")
    shown = line.run("train", "show", "1", "--home", "home", "--json").last_line
    assert [each["epoch"] for each in shown["history"]] == [1, 2]
    assert "trained@1" in line.run("train", "list", "--home", "home", env={"COLUMNS": "200"}).out
    assert line.run("train", "cancel", "1", "--home", "home").err == "training job 1 had ended already\n"
    assert line.run("train", "resume", "1", "--home", "home").err == "farm: training job 1 is done already\n"


def test_a_device_that_is_not_there_is_said_and_the_cpu_not_taken(line, tmp_path):
    ran = line.run("train", "submit", "net.toml", "--dataset", "faces", "--wait-on", "cuda:99", "--home", "home")

    assert ran.code == 1
    assert "torch cannot use the device 'cuda:99'" in ran.err


def test_an_unknown_job_is_one_line(line):
    line.run("db", "upgrade", "--home", "home")

    ran = line.run("train", "show", "7", "--home", "home")
    assert (ran.code, ran.err) == (1, "farm: there is no training job 7\n")
