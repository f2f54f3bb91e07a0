"""A checkpoint is written whole or not at all, and read only when it is one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from farm.errors import BadModel
from trainer.checkpoint import begin, restore, save
from trainer.config import TrainConfig

TINY = TrainConfig.from_values({"width": 2, "data": [{"manifest": "set"}], "run": {"precision": "fp32"}})
FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from farm.errors import BadInput
from trainer.checkpoint import restore, save
path = Path(sys.argv[1])
state = restore(path)
state.step = 9
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    save(state, path)
except BadInput as error:
    sys.exit(str(error))
"""


def test_a_checkpoint_that_has_no_room_leaves_the_last_good_one_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save(begin(TINY), path)
    before = path.read_bytes()
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and f"checkpoint {path} could not be written" in done.stderr, done.stderr
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "last.pt"
    save(begin(TINY), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept if kept >= 1 else kept * len(whole))])
    with pytest.raises(BadModel, match=r"last\.pt"):
        restore(path)


def test_a_checkpoint_gives_back_weights_configuration_and_place(tmp_path: Path) -> None:
    state = begin(TINY)
    state.step, state.cpu_seconds = 17, 3.5
    save(state, tmp_path / "c.pt")
    back = restore(tmp_path / "c.pt")
    assert (back.step, back.cpu_seconds, back.config) == (17, 3.5, TINY)
    assert all(torch.equal(a, b) for a, b in zip(back.model.parameters(), state.model.parameters(), strict=True))
