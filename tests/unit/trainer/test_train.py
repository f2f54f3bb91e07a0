"""Training learns, resumes where it stopped, and follows its schedule."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer import train
from trainer.dataset import PairMill, collate
from trainer.evaluate import PLAIN
from trainer.model import Logits

TINY = train.Recipe(width=2, images=24, pairs=2, warmup_images=8, learning_rate=5e-3, full_share=0.5)


def test_the_rate_rises_stays_and_falls_to_zero() -> None:
    recipe = train.Recipe(images=1000, warmup_images=100, cooldown=0.4, learning_rate=1.0)
    rates = [train.learning_rate(recipe, n) for n in (0, 50, 100, 500, 600, 800, 1000)]
    assert rates[0] < rates[1] < rates[2] == rates[3] == rates[4] == 1.0
    assert rates[5] == pytest.approx(0.5) and rates[6] == 0.0


@pytest.mark.parametrize("weights", [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
def test_a_positive_class_logit_and_a_mask_of_one_mean_fake(weights: tuple[float, float]) -> None:
    recipe = train.Recipe(ranking_weight=weights[0], mask_weight=weights[1])
    masks = torch.zeros(2, 1, 8, 8)
    masks[1, :, 2:6, 2:6] = 1
    right = Logits(torch.tensor([[-3.0], [3.0]]), (masks - 0.5) * 8)
    assert train.loss_of(right, masks, recipe) < train.loss_of(
        Logits(-right.class_logit, right.mask_logit), masks, recipe
    )
    inverted = train.loss_of(Logits(right.class_logit, -right.mask_logit), masks, recipe)
    assert (train.loss_of(right, masks, recipe) < inverted) == bool(recipe.mask_weight)


def test_a_tiny_network_learns_one_batch_by_heart(cache: Path) -> None:
    torch.set_num_threads(1)
    mill = PairMill.open(cache, np.arange(22))
    batch = collate([mill.make(np.random.default_rng(i), row=i, kind="donor", recipe=PLAIN) for i in range(3)])
    recipe = train.Recipe(
        width=4, pairs=3, images=10**6, warmup_images=1, learning_rate=8e-3, full_share=0.0, window_share=0.0
    )
    state = train.begin(recipe)
    losses = [train.step(state, recipe, *batch) for _ in range(25)]
    assert losses[-1] < 0.75 * losses[0]


def test_early_steps_see_a_window_of_crop_and_mask_alike_and_late_steps_the_whole() -> None:
    recipe = train.Recipe(width=2, pairs=1, images=100, window_share=0.5, window_px=160)
    state = train.begin(recipe)
    masks = torch.arange(224 * 224).reshape(1, 1, 224, 224).repeat(2, 1, 1, 1)
    crops = masks.repeat(1, 3, 1, 1)
    seen, where = train.window(state, recipe, crops, masks)
    assert seen.shape == (2, 3, 160, 160) and torch.equal(seen[:, :1], where)
    state.step = 25
    assert train.window(state, recipe, crops, masks)[0] is crops


def test_a_resumed_training_goes_on_and_ends_where_an_unbroken_one_does(cache: Path, tmp_path: Path) -> None:
    rows = np.arange(24)
    whole = train.train(cache, rows, tmp_path / "whole", TINY, loaders=0, checkpoint_every=3)
    half = train.begin(TINY)
    half.model.train()
    from trainer.dataset import Pairs

    batches = iter(Pairs(cache, rows, TINY.pairs, TINY.seed))
    for _ in range(3):
        train.step(half, TINY, *next(batches))
    (tmp_path / "broken").mkdir()
    train.save(half, TINY, tmp_path / "broken" / "last.pt")
    resumed = train.train(cache, rows, tmp_path / "broken", TINY, loaders=0, checkpoint_every=3)
    assert resumed.step == whole.step == 6
    # Dropout draws differ after a resume; the averages of weights must still be all but the same.
    for a, b in zip(resumed.average.parameters(), whole.average.parameters(), strict=True):
        assert torch.allclose(a, b, atol=0.05)


def test_the_log_tells_the_pictures_seen_and_the_cpu_time(cache: Path, tmp_path: Path) -> None:
    train.train(cache, np.arange(24), tmp_path, TINY, loaders=0, checkpoint_every=3)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == [12, 24]
    assert lines[-1]["cpu_seconds"] > lines[0]["cpu_seconds"] > 0


def test_a_checkpoint_gives_back_weights_recipe_and_place(tmp_path: Path) -> None:
    state = train.begin(TINY)
    state.step, state.cpu_seconds = 17, 3.5
    train.save(state, TINY, tmp_path / "c.pt")
    back, recipe = train.restore(tmp_path / "c.pt")
    assert (back.step, back.cpu_seconds, recipe) == (17, 3.5, TINY)
    assert all(torch.equal(a, b) for a, b in zip(back.model.parameters(), state.model.parameters(), strict=True))
