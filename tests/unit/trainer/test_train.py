"""A training stops, goes on bit for bit, makes do with less room, and refuses what it cannot trust."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from farm.errors import BadInput, BadModel, FarmError
from trainer import train as training
from trainer.checkpoint import State, begin, read_checkpoint, save
from trainer.config import Loss, TrainConfig
from trainer.dataset import Batch, Batches
from trainer.feed import open_feed
from trainer.loss import joint_loss
from trainer.manifest import CropSet
from trainer.model import Logits
from trainer.splits import make_split
from trainer.train import check, step, train
from trainer.watch import watch

RUN = {"epochs": 2, "epoch_images": 32, "pairs": 4, "loaders": 0, "validation_images": 4, "precision": "fp32"}
Settings = Callable[..., TrainConfig]


@pytest.fixture
def split(aligned: Path, tmp_path: Path) -> Path:
    (tmp_path / "split").mkdir()
    return make_split([CropSet.open(aligned)], validation=0.4).save(tmp_path / "split")


@pytest.fixture
def settings(aligned: Path, split: Path) -> Settings:
    def make(data: dict[str, Any] | None = None, **run: Any) -> TrainConfig:
        entry = {"manifest": str(aligned), "split": str(split)} | (data or {})
        values = {"width": 2, "data": [entry], "run": RUN | run, "log": {"tensorboard": False}}
        return TrainConfig.from_values(values)

    return make


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _alike(one: Path, other: Path) -> bool:
    a, b = read_checkpoint(one), read_checkpoint(other)
    return all(_same(a[key], b[key]) for key in ("model", "average", "optimiser", "random", "step"))


@pytest.mark.parametrize("after", [1, 3])
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(settings: Settings, tmp_path: Path, after: int) -> None:
    train(settings(), tmp_path / "whole")
    asked = iter([False] * (after - 1) + [True] * 9)
    events: list[dict[str, Any]] = []
    train(settings(), tmp_path / "broken", events.append, lambda: next(asked))
    assert events[-1]["event"] == "stopped" and events[-1]["images"] == 8 * after
    train(settings(), tmp_path / "broken")
    assert _alike(tmp_path / "whole" / "last.pt", tmp_path / "broken" / "last.pt")


def test_a_training_keeps_its_precision_wherever_it_goes_on(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    asked, events = iter([True]), list[dict[str, Any]]()
    train(settings(precision="auto"), tmp_path / "run", events.append, lambda: next(asked))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    train(settings(precision="auto"), tmp_path / "run", events.append, lambda: True)
    assert [event["precision"] for event in events if event["event"] == "begin"] == ["fp32", "fp32"]
    assert read_checkpoint(tmp_path / "run" / "last.pt")["precision"] == "fp32"
    with pytest.raises(BadInput, match="holds a training with precision fp32"):
        train(settings(precision="bf16"), tmp_path / "run")


def test_a_seed_reproduces_and_another_does_not(settings: Settings, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(settings(epochs=1, seed=seed), tmp_path / name)
    assert _alike(tmp_path / "a" / "last.pt", tmp_path / "b" / "last.pt")
    assert not _alike(tmp_path / "a" / "last.pt", tmp_path / "c" / "last.pt")


def _crowded(state: State, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    plain = training._forward

    def forward(state: State, full: bool) -> Callable[[torch.Tensor], Logits]:
        def run(image: torch.Tensor) -> Logits:
            if len(image) > most:
                raise torch.OutOfMemoryError("no room")
            return plain(state, full)(image)

        return run

    monkeypatch.setattr(training, "_forward", forward)


def _one_batch(config: TrainConfig) -> Batch:
    return Batches(open_feed(config).train, config.run.pairs, config.run.seed).batch(0)


def test_a_step_without_room_is_halved(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    state, events = begin(settings()), list[dict[str, Any]]()
    _crowded(state, monkeypatch, 4)
    step(state, 8, _one_batch(settings()), events.append)
    assert events == [{"event": "halved", "accumulate": 2}] and (state.accumulate, state.step) == (2, 1)


def test_where_not_one_pair_fits_the_training_fails(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    state = begin(settings())
    _crowded(state, monkeypatch, 1)
    with pytest.raises(BadModel, match="not even one pair"):
        step(state, 8, _one_batch(settings()))


def test_a_leaking_split_is_refused_unless_allowed(settings: Settings, aligned: Path, tmp_path: Path) -> None:
    (tmp_path / "leaking").mkdir()
    path = str(make_split([CropSet.open(aligned)], by="video", validation=0.5).save(tmp_path / "leaking"))
    with pytest.raises(BadInput, match="the split leaks"):
        open_feed(settings({"split": path}))
    assert open_feed(settings({"split": path, "allow_leaks": True})).facts["leaks"] > 0


def test_another_configuration_in_the_folder_is_refused_by_key(settings: Settings, tmp_path: Path) -> None:
    train(settings(epochs=1), tmp_path / "run")
    with pytest.raises(BadInput, match=r"run\.seed differ"):
        train(settings(epochs=1, seed=3), tmp_path / "run")


def test_rows_without_a_known_mask_carry_no_mask_loss() -> None:
    where, masks = torch.zeros(4, 1, 8, 8), torch.zeros(4, 1, 8, 8)
    known = torch.tensor([True, True, True, False])
    wrong = where.clone()
    wrong[3] = 9
    one, other = (joint_loss(Logits(torch.zeros(4, 1), w), masks, known, Loss()) for w in (where, wrong))
    assert one.mask == other.mask > 0


def test_checkpoints_every_two_epochs_best_and_last(settings: Settings, tmp_path: Path) -> None:
    train(settings(), tmp_path / "run")
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"last.pt", "best.pt", "epoch-0002.pt", "log.jsonl"}


def test_a_run_that_dies_between_two_checkpoints_of_an_epoch_still_has_the_best_that_its_last_one_speaks_of(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def dies(state: State, path: Path) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(path.name)
        save(state, path)

    monkeypatch.setattr(training, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        train(settings(), tmp_path / "run")
    monkeypatch.undo()
    assert written == ["best.pt"]
    state = train(settings(), tmp_path / "run")
    assert read_checkpoint(tmp_path / "run" / "best.pt")["best"] == state.best


def test_no_number_for_a_loss_fails_and_the_last_checkpoint_stays(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = iter([False, True])
    train(settings(), tmp_path / "run", stopped=lambda: next(asked))
    before = (tmp_path / "run" / "last.pt").read_bytes()
    monkeypatch.setattr(training, "to_input", lambda crops: crops.float() * float("nan"))
    with pytest.raises(BadModel, match="no number"):
        train(settings(), tmp_path / "run")
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


def test_an_interrupted_command_saves_and_says_so(aligned: Path, split: Path, tmp_path: Path) -> None:
    run = "\n".join(f"{key} = {json.dumps(value)}" for key, value in (RUN | {"epochs": 9999}).items())
    text = f'width = 2\n[[data]]\nmanifest = "{aligned}"\nsplit = "{split}"\n[run]\n{run}\n[log]\ntensorboard = false\n'
    (tmp_path / "t.toml").write_text(text)
    words = ["train", str(tmp_path / "t.toml"), "--run", str(tmp_path / "run"), "--progress"]
    command = [sys.executable, "-c", "from trainer.cli import main; main()", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        said = child.communicate(timeout=100)[0]
    assert child.returncode == 130 and json.loads(said.splitlines()[-1])["event"] == "stopped"
    assert (tmp_path / "run" / "last.pt").exists()


@pytest.mark.parametrize(
    ("run", "told"),
    [({"start_from": "nowhere.json"}, "nowhere.json"), ({"device": "cuda:99"}, "CUDA devices here")],
)
def test_what_a_training_cannot_begin_with_is_found_before_it_begins(
    run: dict[str, Any], told: str, settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(FarmError, match=told):
        check(settings(**run))
    with pytest.raises(FarmError, match=told):
        train(settings(**run), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_share_of_a_training_that_is_warm_up_is_told(settings: Settings, tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    train(settings(), tmp_path / "run", told.append, stopped=lambda: True)
    assert told[0]["warmup_share"] == pytest.approx(settings().optimiser.warmup_images / 64)


@pytest.mark.parametrize(("images", "pairs"), [(2, 1), (60, 30), (64, 32)])
def test_a_watch_scores_as_many_pairs_as_it_was_asked_for(
    images: int, pairs: int, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[tuple[int, int]] = []
    monkeypatch.setattr("trainer.watch.auc", lambda real, fake: counted.append((len(real), len(fake))) or 0.5)
    config = settings(validation_images=images)
    watch(begin(config), open_feed(config).validation)
    assert counted == [(pairs, pairs)]
