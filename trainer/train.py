"""Training with a budget of pictures: warm-up, a flat stretch, a cosine to zero; resumable at every checkpoint. Knows no ONNX.

B crops in a batch (half of them the fakes of the other half), S crop side.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from farm.errors import BadInput
from trainer.dataset import Pairs, to_input
from trainer.model import Logits, UYNet


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the weights, beside the data and the code."""

    width: int = 16
    #: pictures seen in all, reals and fakes
    images: int = 78_000
    #: pairs per step, so 2x as many pictures
    pairs: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup_images: int = 2_000
    #: share of the training, at its start, that sees only a random window of each crop, at the crop's own scale: half the cost
    window_share: float = 0.6
    window_px: int = 160
    #: share of the training, at its end, over which the rate falls to zero along a cosine
    cooldown: float = 0.4
    mask_weight: float = 1.0
    #: weight of the loss that wants a fake's logit above that of its own original
    ranking_weight: float = 0.5
    #: share of the steps whose mask is supervised at the full side; the others stop at a quarter, at half the time
    full_share: float = 0.15
    ema: float = 0.995
    seed: int = 7


@dataclass(slots=True)
class State:
    """A training at some step."""

    model: UYNet
    #: running average of the weights: the one that is evaluated and exported
    average: UYNet
    optimiser: torch.optim.Optimizer
    step: int = 0
    cpu_seconds: float = 0.0


def begin(recipe: Recipe) -> State:
    """A fresh state from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    model = UYNet(recipe.width).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return State(model, copy.deepcopy(model).requires_grad_(False), _optimiser(model, recipe))


def _optimiser(model: UYNet, recipe: Recipe) -> torch.optim.Optimizer:
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def learning_rate(recipe: Recipe, images: int) -> float:
    """The rate after so many pictures."""
    rise = min(1.0, (images + 1) / max(1, recipe.warmup_images))
    left = (recipe.images - images) / max(1.0, recipe.cooldown * recipe.images)
    return recipe.learning_rate * rise * (0.5 - 0.5 * math.cos(math.pi * min(1.0, max(0.0, left))))


def loss_of(logits: Logits, masks: Tensor, recipe: Recipe) -> Tensor:
    """Class, mask and ranking loss of a batch whose first half are the originals of its second half; masks (B, 1, S', S')."""
    scores = logits.class_logit[:, 0].float()
    half = len(scores) // 2
    labels = torch.cat([torch.zeros(half), torch.ones(half)]).to(scores)
    # A little smoothing: some fakes can hardly be told from their originals, and certainty about them is overfitting.
    classes = functional.binary_cross_entropy_with_logits(scores, labels * 0.94 + 0.03)
    ranking = functional.softplus(scores[:half] - scores[half:]).mean()
    where = logits.mask_logit.float()
    p, target = torch.sigmoid(where), masks.to(where)
    dice = 1 - (2 * (p * target).sum((1, 2, 3)) + 50) / (p.sum((1, 2, 3)) + target.sum((1, 2, 3)) + 50)
    mask = functional.binary_cross_entropy_with_logits(where, target) + 0.5 * dice.mean()
    return classes + recipe.ranking_weight * ranking + recipe.mask_weight * mask


def step(state: State, recipe: Recipe, crops: Tensor, masks: Tensor) -> float:
    """One step on a batch of uint8 crops and masks; returns the loss."""
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(recipe, state.step * 2 * recipe.pairs)
    full = (state.step * recipe.full_share) % 1 < recipe.full_share
    crops, masks = window(state, recipe, crops, masks)
    image = to_input(crops).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        logits = state.model(image) if full else state.model.forward_quarter(image)
    loss = loss_of(logits, masks if full else functional.avg_pool2d(masks.float(), 4), recipe)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.model.parameters(), 5.0)
    state.optimiser.step()
    state.step += 1
    _follow(state, recipe.ema)
    return float(loss.detach())


def window(state: State, recipe: Recipe, crops: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Early in the training one window for the whole batch, later the batch as it is. Never a smaller scale: logits hang on it."""
    if state.step * 2 * recipe.pairs >= recipe.window_share * recipe.images:
        return crops, masks
    free = crops.shape[-1] - recipe.window_px + 1
    rng = np.random.default_rng((recipe.seed, state.step))
    top, left = (int(x) for x in rng.integers(free, size=2))
    rows, columns = slice(top, top + recipe.window_px), slice(left, left + recipe.window_px)
    return crops[:, :, rows, columns], masks[:, :, rows, columns]


@torch.no_grad()
def _follow(state: State, decay: float) -> None:
    # Early on the average would hold mostly the random start; let it follow faster.
    decay = min(decay, (1 + state.step) / (10 + state.step))
    for mean, value in zip(state.average.state_dict().values(), state.model.state_dict().values(), strict=True):
        mean.lerp_(value, 1 - decay) if mean.is_floating_point() else mean.copy_(value)


def save(state: State, recipe: Recipe, path: Path) -> None:
    """Write a checkpoint; a reader never sees half of one."""
    part = path.with_suffix(".part")
    parts: dict[str, Any] = {"model": state.model.state_dict(), "average": state.average.state_dict()}
    parts |= {
        "optimiser": state.optimiser.state_dict(),
        "step": state.step,
        "cpu_seconds": state.cpu_seconds,
        "recipe": asdict(recipe),
    }
    torch.save(parts, part)
    part.replace(path)


def restore(path: Path) -> tuple[State, Recipe]:
    """The state and recipe of a checkpoint. Raises BadInput if there is none."""
    if not path.exists():
        raise BadInput(f"there is no checkpoint at {path}; run `trainer train` first")
    parts = torch.load(path, weights_only=True)
    recipe = Recipe(**parts["recipe"])
    state = begin(recipe)
    state.model.load_state_dict(parts["model"])
    state.average.load_state_dict(parts["average"])
    state.optimiser.load_state_dict(parts["optimiser"])
    state.step, state.cpu_seconds = parts["step"], parts["cpu_seconds"]
    return state, recipe


def train(
    cache: Path,
    rows: NDArray[Any],
    run: Path,
    recipe: Recipe,
    threads: int = 1,
    loaders: int = 1,
    checkpoint_every: int = 25,
) -> State:
    """Train until the recipe's pictures are seen, going on from `run/last.pt` if it is there. Logs JSON lines to `run/log.jsonl`."""
    torch.set_num_threads(threads)
    run.mkdir(parents=True, exist_ok=True)
    last = run / "last.pt"
    state = restore(last)[0] if last.exists() else begin(recipe)
    state.model.train()
    steps = math.ceil(recipe.images / (2 * recipe.pairs))
    batches = _batches(Pairs(cache, rows, recipe.pairs, recipe.seed, first=state.step), loaders)
    wall, cpu, losses = time.monotonic(), time.process_time(), []
    while state.step < steps:
        losses.append(step(state, recipe, *next(batches)))
        if state.step % checkpoint_every == 0 or state.step == steps:
            state.cpu_seconds += time.process_time() - cpu
            save(state, recipe, last)
            rate = len(losses) * 2 * recipe.pairs / (time.monotonic() - wall)
            line = {"images": state.step * 2 * recipe.pairs, "loss": sum(losses) / len(losses), "images_per_second": rate,
                    "cpu_seconds": state.cpu_seconds, "learning_rate": learning_rate(recipe, state.step * 2 * recipe.pairs)}  # fmt: skip
            with (run / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            wall, cpu, losses = time.monotonic(), time.process_time(), []
    return state


def _batches(pairs: Pairs, loaders: int) -> Iterator[tuple[Tensor, Tensor]]:
    if not loaders:
        return iter(pairs)
    # Spawned, not forked: a fork of a process whose arithmetic threads already run can hang in the child.
    loader = DataLoader(
        pairs,
        batch_size=None,
        num_workers=loaders,
        prefetch_factor=4,
        worker_init_fn=_one_thread,
        multiprocessing_context="spawn",
    )
    return iter(loader)


def _one_thread(_: int) -> None:
    import cv2

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
