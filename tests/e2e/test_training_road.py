"""From a downloaded data set to a scan with the network trained on it, by the commands of the README."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from dfdc_folder import write_dfdc

CONFIG = """
name = "road"
width = 2
[[data]]
manifest = "prepared"
[run]
epochs = 2
epoch_images = 32
pairs = 4
validation_images = 16
loaders = 0
[log]
tensorboard = false
"""


def trainer(folder: Path, *words: str) -> str:
    command = [sys.executable, "-c", "from trainer.cli import main; main()", *words]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(600)
def test_a_downloaded_data_set_becomes_a_network_that_scans(tmp_path: Path) -> None:
    write_dfdc(tmp_path / "downloaded", parts=4)
    trainer(tmp_path, "prepare", "dfdc", "downloaded", "--out", "prepared", "--frames", "4")
    trainer(tmp_path, "split", "prepared", "--validation", "0.5")
    (tmp_path / "train.toml").write_text(CONFIG)
    trainer(tmp_path, "train", "train.toml", "--run", "run")
    trainer(tmp_path, "export", "run", "--out", "weights", "--report", "report")
    told = json.loads(trainer(tmp_path, "evaluate", "--manifest", "prepared", "--model", "weights/road.json", "--json"))
    card = json.loads((tmp_path / "weights" / "road.json").read_text())
    # Which epoch is best hangs on the last bit of the arithmetic, and that on the machine.
    assert card["demonstration"] and card["training"]["images_seen"] in (32, 64)
    assert told["scored_by"]["sha256"] == card["sha256"]
    assert (tmp_path / "report" / "prepared" / "index.html").exists()

    farm = [
        sys.executable,
        "-c",
        "from farm.cli import main; main()",
        "scan",
        "downloaded/dfdc_train_part_0/real_0.mp4",
    ]
    options = ["--home", "home", "--model", "weights/road.json", "--engine", "onnx", "--json"]
    scanned = subprocess.run([*farm, *options], cwd=tmp_path, check=False, capture_output=True, text=True, timeout=170)
    assert scanned.returncode == 0, scanned.stderr
    (video,) = json.loads((tmp_path / "home" / "reports" / "scan-1" / "results.json").read_text())
    assert video["model_sha256"] == card["sha256"] and video["faces"] > 0
