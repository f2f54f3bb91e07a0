"""What a training logs can be read back."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from farm.errors import EngineMissing
from trainer.config import TrainConfig
from trainer.curves import Curves, sample_grid


def config(**log: object) -> TrainConfig:
    return TrainConfig.from_values({"data": [{"manifest": "set"}], "log": log})


def test_figures_and_sample_masks_reach_tensorboard_and_the_log(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    crops, mask = np.full((2, 224, 224, 3), 90, np.uint8), np.zeros((2, 224, 224), np.float32)
    mask[:, 50:150, 50:150] = 1
    curves = Curves(config(tensorboard=True), tmp_path)
    curves.add(32, {"loss/total": 1.5, "note": "no number"})
    curves.show(32, sample_grid(crops, mask / 2, mask))
    curves.close()
    seen = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in seen.Scalars("loss/total")] == [(32, 1.5)]
    (picture,) = seen.Images("input | predicted | actual")
    assert (picture.step, picture.width, picture.height) == (32, 3 * 112, 2 * 112)
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"images": 32, "loss/total": 1.5, "note": "no number"}


def test_a_grid_shows_input_predicted_and_actual_side_by_side() -> None:
    crops = np.full((1, 224, 224, 3), 90, np.uint8)
    grid = sample_grid(crops, np.zeros((1, 224, 224), np.float32), np.ones((1, 56, 56), np.float32))
    assert [set(np.unique(grid[:, x : x + 112])) for x in (0, 112, 224)] == [{90}, {0}, {255}]


def test_weights_and_biases_is_asked_for_and_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(EngineMissing, match=r"Weights & Biases cannot be used .* or set log.wandb"):
        Curves(config(tensorboard=False, wandb="offline"), tmp_path)
