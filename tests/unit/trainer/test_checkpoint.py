"""A checkpoint is written whole or not at all, and read only when it is one."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from farm.errors import BadInput, BadModel
from trainer.checkpoint import begin, restore, save
from trainer.config import TrainConfig

TINY = TrainConfig.from_values({"width": 2, "data": [{"manifest": "set"}], "run": {"precision": "fp32"}})


@contextmanager
def full_disk(size_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes; Python ignores the signal, so that writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_that_has_no_room_leaves_the_last_good_one_and_says_so(tmp_path: Path) -> None:
    path, state = tmp_path / "last.pt", begin(TINY)
    save(state, path)
    before = path.read_bytes()
    state.step = 9
    with full_disk(4096), pytest.raises(BadInput, match=f"checkpoint {path} could not be written"):
        save(state, path)
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


def test_bytes_that_are_no_checkpoint_are_refused_without_advice_to_load_them_unsafely(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    with pytest.raises(BadModel, match="damaged, cut off or no checkpoint") as refused:
        restore(path)
    assert "weights_only" not in str(refused.value)
