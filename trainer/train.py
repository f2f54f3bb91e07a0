"""Training: epochs of so many pictures, checkpoints, and a resume that continues bit for bit. Knows no ONNX, SQL or farm.

B pairs in a step (B reals, then B fakes), S crop side.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from farm.errors import BadInput, BadModel
from trainer.checkpoint import State, begin, restore, save
from trainer.config import TrainConfig
from trainer.curves import Curves
from trainer.dataset import Batch, Batches, to_input
from trainer.feed import Feed, open_feed
from trainer.loss import Losses, joint_loss
from trainer.model import Logits
from trainer.precision import AUTO, BF16, NO, YES
from trainer.start import start
from trainer.watch import watch

LAST, BEST = "last.pt", "best.pt"
START_PAIRS = 32
"""Whose crops set the batch norms of a network that begins with exported weights."""
LOG_SECONDS = 10.0
"""Between two lines of the log within an epoch."""
Tell = Callable[[dict[str, Any]], None]


def train(
    config: TrainConfig, run: Path, tell: Tell = lambda event: None, stopped: Callable[[], bool] = lambda: False
) -> State:
    """Train until the configuration's epochs are done, going on from RUN/last.pt if it is there.

    RUN gets `last.pt` (after every epoch, and when stopped), `best.pt` (highest validation AUC), `epoch-NNNN.pt`, `log.jsonl`, curves.
    `tell` hears events: "begin", "epoch", "checkpoint" (with its "file"), "halved", then "done" or "stopped".
    Raises BadInput for data or a device that cannot be had, another configuration in RUN, or a full disk; BadModel where the loss is no
    number or not even one pair fits; checkpoints written before stay as they are.
    """
    _check_device(config)
    torch.set_num_threads(config.run.threads)
    feed = open_feed(config)
    state = _open(config, run, feed)
    run.mkdir(parents=True, exist_ok=True)
    curves = Curves(config, run)
    epoch_steps = math.ceil((config.run.epoch_images or feed.crops) / (2 * config.run.pairs))
    steps = epoch_steps * config.run.epochs
    seen = {"epochs": config.run.epochs, "steps": steps, "precision": state.precision}
    warmup = config.optimiser.warmup_images / (steps * 2 * config.run.pairs)
    tell(
        {"event": "begin", "warmup_share": warmup, "epoch": state.step // epoch_steps, "images": _images(state), **seen}
    )
    batches = _batches(Batches(feed.train, config.run.pairs, config.run.seed, first=state.step), config.run.loaders)
    try:
        while state.step < steps:
            figures = _epoch(state, steps, epoch_steps, batches, curves, stopped, tell)
            if state.step % epoch_steps:
                _keep(state, run, [LAST], state.step // epoch_steps, tell)
                tell({"event": "stopped", "epoch": state.step // epoch_steps, "images": _images(state), **seen})
                return state
            _finish_epoch(state, run, feed, curves, figures, state.step // epoch_steps, tell)
            if stopped() and state.step < steps:
                tell({"event": "stopped", "epoch": state.step // epoch_steps, "images": _images(state), **seen})
                return state
    finally:
        curves.close()
    tell(
        {"event": "done", "epoch": config.run.epochs, "images": _images(state), "best_epoch": state.best_epoch, **seen}
    )
    return state


def check(config: TrainConfig) -> Feed:
    """Open all that a training would begin with, and begin none. Raises BadInput and BadModel as `train` does."""
    _check_device(config)
    feed = open_feed(config)
    _begin(config, feed)
    return feed


def _check_device(config: TrainConfig) -> None:
    try:
        device = torch.device(config.run.device)
    except RuntimeError as error:
        raise BadInput(f"run.device is {config.run.device!r}: {str(error).splitlines()[0]}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadInput(
            f"run.device is {config.run.device!r}, but torch sees {torch.cuda.device_count()} CUDA devices here"
        )


def _open(config: TrainConfig, run: Path, feed: Feed) -> State:
    if not (run / LAST).exists():
        return _begin(config, feed)
    state = restore(run / LAST, config.run.device)
    if other := sorted(_differences(state.config.to_values(), config.to_values())):
        raise BadInput(
            f"{run} holds a training of another configuration ({', '.join(other)} differ); name another --run folder"
        )
    if state.facts["data"] != feed.facts["data"]:
        raise BadInput(f"the data sets were prepared again since {run} was begun; name another --run folder")
    _check_kept(run, "precision", config.run.precision, state.precision)
    _check_kept(run, "channels_last", config.run.channels_last, YES if state.channels_last else NO)
    state.config = config
    return state


def _begin(config: TrainConfig, feed: Feed) -> State:
    state = begin(config)
    state.facts = feed.facts
    if config.run.start_from:
        crops = Batches(feed.train, START_PAIRS, config.run.seed).batch(0).crops.to(config.run.device)
        start(state, Path(config.run.start_from), to_input(crops))
    return state


def _check_kept(run: Path, key: str, asked: str, kept: str) -> None:
    if asked not in (AUTO, kept):
        raise BadInput(
            f"{run} holds a training with {key} {kept}, and run.{key} is {asked!r}; name another --run folder"
        )


#: what may change between two starts of one training without changing what it computes
_FREE = {
    "run.device",
    "run.precision",
    "run.channels_last",
    "run.threads",
    "run.loaders",
    "run.checkpoint_every_epochs",
    "log.tensorboard",
    "log.wandb",
}


def _differences(old: dict[str, Any], new: dict[str, Any], at: str = "") -> set[str]:
    found: set[str] = set()
    for key in old.keys() | new.keys():
        name, one, other = f"{at}{key}", old.get(key), new.get(key)
        if isinstance(one, dict) and isinstance(other, dict) and name != "fakes":
            found |= _differences(one, other, f"{name}.")
        elif key == "data":
            same = len(one or ()) == len(other or ()) and all(
                {k: v for k, v in a.items() if k not in ("manifest", "split")}
                == {k: v for k, v in b.items() if k not in ("manifest", "split")}
                for a, b in zip(one or (), other or (), strict=True)
            )
            found |= set() if same else {name}
        elif one != other and name not in _FREE:
            found.add(name)
    return found


def _epoch(
    state: State,
    steps: int,
    epoch_steps: int,
    batches: Iterator[Batch],
    curves: Curves,
    stopped: Callable[[], bool],
    tell: Tell,
) -> dict[str, float]:
    """Steps until the epoch ends or somebody wants to stop; means of its losses and its speed."""
    cpu, wall, sums, count = time.process_time(), time.monotonic(), np.zeros(len(Losses._fields)), 0
    logged = wall
    while True:
        parts = step(state, steps, next(batches), tell)
        sums += parts
        count += 1
        now = time.monotonic()
        figures = {f"loss/{name}": float(value) for name, value in zip(Losses._fields, sums / count, strict=True)}
        figures["images_per_second"] = count * 2 * state.config.run.pairs / (now - wall)
        ended = state.step % epoch_steps == 0
        if ended or stopped():
            state.cpu_seconds += time.process_time() - cpu
            return figures
        if now - logged >= LOG_SECONDS:
            logged = now
            curves.add(_images(state), figures)


def _finish_epoch(
    state: State, run: Path, feed: Feed, curves: Curves, figures: dict[str, float], epoch: int, tell: Tell
) -> None:
    seen, grid = watch(state, feed.validation)
    figures = (
        figures
        | seen
        | {
            "learning_rate": learning_rate(state.config, _images(state), _total(state, feed)),
            "cpu_seconds": state.cpu_seconds,
        }
    )
    curves.add(_images(state), figures | {"epoch": epoch})
    curves.show(_images(state), grid)
    tell(
        {
            "event": "epoch",
            "epoch": epoch,
            "epochs": state.config.run.epochs,
            "images": _images(state),
            "loss": figures["loss/total"],
            **figures,
        }
    )
    names = []
    if seen["validation/frame_auc"] > state.best:
        state.best, state.best_epoch = seen["validation/frame_auc"], epoch
        names.append(BEST)
    if epoch % state.config.run.checkpoint_every_epochs == 0:
        names.append(f"epoch-{epoch:04d}.pt")
    names.append(LAST)  # after the others: what it says of the best must be there for whoever goes on from it
    _keep(state, run, names, epoch, tell)


def _keep(state: State, run: Path, names: list[str], epoch: int, tell: Tell) -> None:
    for name in names:
        save(state, run / name)
        where = {"epoch": epoch, "epochs": state.config.run.epochs, "images": _images(state)}
        tell({"event": "checkpoint", "file": str(run / name), **where})


def _total(state: State, feed: Feed) -> int:
    run = state.config.run
    return math.ceil((run.epoch_images or feed.crops) / (2 * run.pairs)) * run.epochs * 2 * run.pairs


def _images(state: State) -> int:
    return state.step * 2 * state.config.run.pairs


def learning_rate(config: TrainConfig, images: int, total: int) -> float:
    """The rate after `images` of `total` pictures: a linear warm-up, a flat stretch, a cosine to zero over the last `cooldown`."""
    optimiser = config.optimiser
    rise = min(1.0, (images + 1) / max(1, optimiser.warmup_images))
    left = (total - images) / max(1.0, optimiser.cooldown * total)
    return optimiser.learning_rate * rise * (0.5 - 0.5 * math.cos(math.pi * min(1.0, max(0.0, left))))


def step(state: State, steps: int, batch: Batch, tell: Tell = lambda event: None) -> tuple[float, ...]:
    """One step of a training of `steps` on a batch; its losses as numbers, in the order of `Losses`.

    Where the device has no room, the batch is halved, its gradients accumulated, and so it stays: the same step, in more parts (the
    batch norms then see fewer crops at once). Raises BadModel where not even one pair fits, or the loss or gradient is no number.
    """
    config, images = state.config, _images(state)
    rate = learning_rate(config, images, steps * 2 * config.run.pairs)
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    window = _window(config, state.step, steps)
    full = (state.step * config.run.full_mask_share) % 1 < config.run.full_mask_share
    while True:
        try:
            parts = _gradients(state, batch, window, full)
            break
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if not _no_room(error):
                raise
            _halve(state, error)
        tell({"event": "halved", "accumulate": state.accumulate})  # the failed attempt's memory is free again here
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), config.optimiser.clip_norm)
    if not (math.isfinite(parts[0]) and math.isfinite(float(norm))):
        raise BadModel(
            f"the loss or its gradient is no number any more at batch {state.step} (loss {parts[0]}, gradient norm {float(norm)}, learning "
            f"rate {rate:.2e}): lower optimiser.learning_rate or clip_norm, or use precision fp32; the last checkpoint is from before"
        )
    state.optimiser.step()
    state.step += 1
    _follow(state, config.optimiser.ema)
    return parts


def _gradients(state: State, batch: Batch, window: tuple[slice, slice], full: bool) -> tuple[float, ...]:
    run = state.config.run
    device = torch.device(run.device)
    state.model.train()
    state.optimiser.zero_grad(set_to_none=True)
    sums = np.zeros(len(Losses._fields))
    forward = _forward(state, full)
    layout = torch.channels_last if state.channels_last else torch.contiguous_format
    for part in _parts(batch, state.accumulate):
        crops = part.crops[:, :, *window].to(device, non_blocking=True)
        masks = part.masks[:, :, *window].to(device, non_blocking=True)
        image = to_input(crops).contiguous(memory_format=layout)
        with torch.autocast(device.type, torch.bfloat16, enabled=state.precision == BF16):
            logits = forward(image)
        truth = masks.float() if full else functional.avg_pool2d(masks.float(), 4)
        losses = joint_loss(logits, truth, part.mask_known.to(device), state.config.loss)
        share = len(part.crops) / len(batch.crops)
        (losses.total * share).backward()  # type: ignore[no-untyped-call]
        sums += torch.stack(losses).detach().double().cpu().numpy() * share  # waits for the device once
    return tuple(float(x) for x in sums)


def _forward(state: State, full: bool) -> Callable[[Tensor], Logits]:
    plain = state.model.forward if full else state.model.forward_quarter
    return (
        torch.compile(plain) if state.config.run.compile else plain
    )  # compiled once: torch caches by the code it is given


def _parts(batch: Batch, count: int) -> Iterator[Batch]:
    """A batch in equal parts, every fake beside its own real."""
    half = len(batch.crops) // 2
    for rows in np.array_split(np.arange(half), count):
        both = torch.from_numpy(np.concatenate([rows, rows + half]))
        yield Batch(batch.crops[both], batch.masks[both], batch.mask_known[both])


def _no_room(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _halve(state: State, error: RuntimeError) -> None:
    state.optimiser.zero_grad(set_to_none=True)
    if state.accumulate >= state.config.run.pairs:
        raise BadModel(
            f"not even one pair of crops fits on {state.config.run.device}: {str(error).splitlines()[0]}; take a smaller width"
        ) from error
    state.accumulate = min(state.config.run.pairs, state.accumulate * 2)
    if torch.device(state.config.run.device).type == "cuda":
        torch.cuda.empty_cache()


def _window(config: TrainConfig, number: int, steps: int) -> tuple[slice, slice]:
    """Early in the training one window for the whole batch, later the whole crop. Never a smaller scale: logits hang on it."""
    side = config.run.window_px
    if number >= config.run.window_share * steps:
        return slice(None), slice(None)
    rng = np.random.default_rng((config.run.seed, number))
    top, left = (int(x) for x in rng.integers(224 - side + 1, size=2))
    return slice(top, top + side), slice(left, left + side)


@torch.no_grad()
def _follow(state: State, decay: float) -> None:
    # Early on the average would hold mostly the random start; let it follow faster.
    decay = min(decay, (1 + state.step) / (10 + state.step))
    pairs = list(zip(state.average.state_dict().values(), state.model.state_dict().values(), strict=True))
    moving = [pair for pair in pairs if pair[0].is_floating_point()]
    torch._foreach_lerp_([mean for mean, _ in moving], [value for _, value in moving], 1 - decay)
    for mean, value in pairs:
        if not mean.is_floating_point():
            mean.copy_(value)


def _batches(pairs: Batches, loaders: int) -> Iterator[Batch]:
    if not loaders:
        return iter(pairs)
    # Spawned, not forked: a fork of a process whose arithmetic threads already run can hang in the child.
    return iter(
        DataLoader(
            pairs,
            batch_size=None,
            num_workers=loaders,
            prefetch_factor=4,
            worker_init_fn=_one_thread,
            multiprocessing_context="spawn",
        )
    )


def _one_thread(_: int) -> None:
    import cv2

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
