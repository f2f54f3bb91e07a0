"""A training on disk: everything that continues it bit for bit, written whole or not at all. Knows no data set.

A file holds plain values and tensors alone, so that reading one runs nothing.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from farm.errors import BadInput, BadModel
from trainer.config import TrainConfig
from trainer.model import UYNet
from trainer.precision import NO, YES, choose_channels_last, choose_precision


@dataclass(slots=True)
class State:
    """A training at some step."""

    config: TrainConfig
    model: UYNet
    #: running average of the weights: the one that is evaluated and exported
    average: UYNet
    optimiser: torch.optim.Optimizer
    #: of the arithmetic, "bf16" or "fp32": decided when the training began, and kept wherever it goes on
    precision: str
    #: how pictures lie in memory: decided and kept like the precision
    channels_last: bool
    step: int = 0
    cpu_seconds: float = 0.0
    #: parts that a step is split into; grows where the device has no room
    accumulate: int = 1
    #: highest validation AUC so far, and its epoch
    best: float = -1.0
    best_epoch: int = 0
    #: what the run was fed with: manifests' sha256, split report, leaks, code version
    facts: dict[str, Any] = field(default_factory=dict)


def begin(config: TrainConfig) -> State:
    """A fresh state from the configuration's seed, on its device."""
    torch.manual_seed(config.run.seed)
    precision = choose_precision(config.run.precision, config.run.device)
    channels_last = choose_channels_last(config.run.channels_last, config.width, precision, config.run.device)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = UYNet(config.width).to(config.run.device).to(memory_format=layout)  # type: ignore[call-overload]
    average = copy.deepcopy(model).requires_grad_(False)
    optimiser = _optimiser(model, config)
    return State(config, model, average, optimiser, precision, channels_last, accumulate=config.run.accumulate)


def _optimiser(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    decay = config.optimiser.weight_decay
    groups = [{"params": decayed, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.optimiser.learning_rate, fused=True)


def save(state: State, path: Path) -> None:
    """Write a checkpoint beside its name, flush it to the disk, then give it its name: what stood there before stays until then.

    Raises BadInput where the disk has no room or cannot be written; the last good checkpoint is untouched.
    """
    parts: dict[str, Any] = {
        "config": state.config.to_values(),
        "model": state.model.state_dict(),
        "average": state.average.state_dict(),
        "optimiser": state.optimiser.state_dict(),
        "random": torch.get_rng_state(),
        "precision": state.precision,
        "channels_last": state.channels_last,
        "step": state.step,
        "cpu_seconds": state.cpu_seconds,
        "accumulate": state.accumulate,
        "best": state.best,
        "best_epoch": state.best_epoch,
        "facts": state.facts,
    }
    if torch.device(state.config.run.device).type == "cuda":
        parts["random_cuda"] = torch.cuda.get_rng_state(state.config.run.device)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            torch.save(parts, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:  # torch tells a short write as RuntimeError
        part.unlink(missing_ok=True)
        raise BadInput(
            f"checkpoint {path} could not be written ({error}); make room and start the training again, it goes on from the last one"
        ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The parts of a checkpoint, on the CPU. Raises BadInput if it is missing, BadModel if it is damaged or something else."""
    if not path.exists():
        raise BadInput(f"there is no checkpoint {path}; run `trainer train` first")
    try:
        parts = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler meets in damaged bytes
        # torch's own words advise to load it unsafely, so they stay in the cause
        raise BadModel(
            f"checkpoint {path} is damaged, cut off or no checkpoint ({type(error).__name__}): take best.pt, last.pt or an epoch's"
        ) from error
    if not isinstance(parts, dict) or not {"config", "model", "average", "optimiser", "step"} <= parts.keys():
        raise BadModel(f"{path} is no checkpoint of `trainer train`")
    _modernise(parts)
    return parts


def _modernise(parts: dict[str, Any]) -> None:
    """Before precision and layout could be "auto", what was asked for was what was taken, and the layout a bool."""
    run = parts["config"]["run"]
    parts.setdefault("precision", run["precision"])
    parts.setdefault("channels_last", run["channels_last"])
    if isinstance(run["channels_last"], bool):
        run["channels_last"] = YES if run["channels_last"] else NO


def restore(path: Path, device: str = "") -> State:
    """The state of a checkpoint, to go on from; `device` where it is to go on elsewhere. Raises BadInput, BadModel."""
    parts = read_checkpoint(path)
    values = parts["config"]
    if device:
        values["run"]["device"] = device
    config = TrainConfig.from_values(values)
    kept = {"precision": parts["precision"], "channels_last": YES if parts["channels_last"] else NO}
    state = begin(dataclasses.replace(config, run=dataclasses.replace(config.run, **kept)))
    state.config = config
    try:
        state.model.load_state_dict(parts["model"])
        state.average.load_state_dict(parts["average"])
        state.optimiser.load_state_dict(parts["optimiser"])
    except (RuntimeError, ValueError) as error:
        raise BadModel(f"checkpoint {path} does not fit its own configuration: {error}") from error
    state.step, state.cpu_seconds, state.accumulate = parts["step"], parts["cpu_seconds"], parts["accumulate"]
    state.best, state.best_epoch, state.facts = parts["best"], parts["best_epoch"], parts["facts"]
    torch.set_rng_state(parts["random"])
    if "random_cuda" in parts and torch.device(state.config.run.device).type == "cuda":
        torch.cuda.set_rng_state(parts["random_cuda"], state.config.run.device)
    return state


def load_network(path: Path) -> UYNet:
    """The averaged weights of a checkpoint, ready to predict on the CPU. Raises BadInput, BadModel."""
    parts = read_checkpoint(path)
    network = UYNet(parts["config"]["width"])
    try:
        network.load_state_dict(parts["average"])
    except RuntimeError as error:
        raise BadModel(f"checkpoint {path} does not fit its own configuration: {error}") from error
    return network.eval().requires_grad_(False)
