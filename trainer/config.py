"""What a training is told: one TOML file, checked key by key. Knows no torch; opens the data sets it names only when asked.

Relative paths are relative to the file. Every key has the default of the shipped weights' recipe; `configs/example.toml` explains each.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from farm.errors import BadInput

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
"""Of a training: it names files."""
UNSEEN = "unseen"
"""Kind of fakes by generators that are kept out of training."""


@dataclass(frozen=True, slots=True)
class Data:
    """[[data]]: one prepared set."""

    #: folder or manifest of a set made by `trainer prepare`
    manifest: str
    #: folder or file of a split made by `trainer split`; empty: the one beside the manifest, else one is drawn
    split: str = ""
    #: kind of fake -> share
    fakes: dict[str, float] = field(default_factory=lambda: {"pair": 1.0})
    weight: float = 1.0
    #: train although the split leaks; the checkpoint and the card say so
    allow_leaks: bool = False


@dataclass(frozen=True, slots=True)
class Loss:
    """[loss]: weights of the parts."""

    mask: float = 1.0
    #: a fake's logit shall be above that of its own original
    ranking: float = 0.5
    #: labels are this far from 0 and 1: some fakes can hardly be told from their originals
    label_smoothing: float = 0.03


@dataclass(frozen=True, slots=True)
class Optimiser:
    """[optimiser]: AdamW under a warm-up, a flat stretch and a cosine to zero."""

    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup_images: int = 2000
    #: share of the training over which the rate falls along a cosine; 1: from the warm-up on
    cooldown: float = 0.4
    #: decay of the running average of the weights, which is what is evaluated and exported
    ema: float = 0.995
    #: gradients are scaled down to this norm
    clip_norm: float = 5.0


@dataclass(frozen=True, slots=True)
class Run:
    """[run]: how long, how much at once, and on what."""

    epochs: int = 10
    #: pictures per epoch, reals and fakes; 0: as many as the usable crops of the training side
    epoch_images: int = 0
    #: pairs per step, so twice as many pictures; halved and accumulated where the device has no room
    pairs: int = 16
    #: steps are split into so many parts whose gradients are summed
    accumulate: int = 1
    checkpoint_every_epochs: int = 2
    #: pictures of the validation side that are scored after every epoch
    validation_images: int = 512
    #: share of the training, at its start, that sees only a random window of each crop, at the crop's own scale
    window_share: float = 0.6
    window_px: int = 160
    #: share of the steps whose mask is supervised at the full side; the others stop at a quarter
    full_mask_share: float = 0.15
    #: "cpu", "cuda" or "cuda:N"
    device: str = "cpu"
    #: "bf16" (autocast), "fp32", or "auto": bf16 where the device computes in it
    precision: str = "auto"
    #: the channels of a pixel side by side in memory: "yes", "no", or "auto": where that was measured to be faster
    channels_last: str = "auto"
    compile: bool = False
    #: CPU threads of the arithmetic, beside the loaders
    threads: int = 1
    #: processes that make pairs; 0: in the training's own
    loaders: int = 1
    seed: int = 7
    #: checkpoint (.pt) or model card (.json) whose weights the training begins with; empty: random ones
    start_from: str = ""


@dataclass(frozen=True, slots=True)
class Log:
    """[log]: curves and sample masks beside `log.jsonl`."""

    tensorboard: bool = True
    #: "off", "offline" or "online"
    wandb: str = "off"


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """The whole file."""

    data: tuple[Data, ...]
    name: str = "uynet"
    version: str = "1.0"
    width: int = 16
    loss: Loss = field(default_factory=Loss)
    optimiser: Optimiser = field(default_factory=Optimiser)
    run: Run = field(default_factory=Run)
    log: Log = field(default_factory=Log)

    def __post_init__(self) -> None:
        for key, value, low, high in _ranges(self):
            if not low <= value <= high:
                raise BadInput(f"the training's {key} is {value}, it must be {low} to {high}")
        for key, word, choices in (
            ("run.precision", self.run.precision, ("auto", "bf16", "fp32")),
            ("run.channels_last", self.run.channels_last, ("auto", "yes", "no")),
            ("log.wandb", self.log.wandb, ("off", "offline", "online")),
        ):
            if word not in choices:
                raise BadInput(f"the training's {key} is {word!r}, it must be one of {', '.join(choices)}")
        _check_name(self.name)
        if not self.data:
            raise BadInput("the training names no data: add a [[data]] section with a manifest")
        if self.run.window_px % 32:
            raise BadInput(f"the training's run.window_px is {self.run.window_px}, it must be a multiple of 32")
        if self.run.start_from and not self.run.start_from.endswith((".pt", ".json")):
            raise BadInput(
                f"the training's run.start_from is {self.run.start_from!r}, it must be a checkpoint (.pt) or a model card (.json)"
            )
        if any(UNSEEN in data.fakes for data in self.data):
            raise BadInput(f"fakes of the kind {UNSEEN!r} stay out of training: they are there to measure on")
        if self.run.pairs % self.run.accumulate:
            raise BadInput(f"{self.run.pairs} pairs per step cannot be split into {self.run.accumulate} equal parts")

    def to_values(self) -> dict[str, Any]:
        """Plain values, as a checkpoint and a model card keep them."""
        return asdict(self)

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Read a TOML file. Raises BadInput that names the file and the key for whatever is wrong with it."""
        try:
            values = tomllib.loads(path.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise BadInput(f"the training configuration {path} cannot be read: {error}") from error
        try:
            return cls.from_values(values, path.resolve().parent)
        except BadInput as error:
            raise BadInput(f"{path}: {error}") from error

    @classmethod
    def from_values(cls, values: Mapping[str, Any], folder: Path = Path()) -> TrainConfig:
        """A configuration from plain values; paths are relative to `folder`. Raises BadInput."""
        values = dict(values)
        entries = values.pop("data", [])
        if not isinstance(entries, list | tuple):
            raise BadInput("data must be sections [[data]]")
        sets = []
        for entry in entries:
            one = _section(Data, entry, "data")
            places = {key: str(folder / getattr(one, key)) for key in ("manifest", "split") if getattr(one, key)}
            sets.append(Data(**asdict(one) | places))
        sections = {"loss": Loss, "optimiser": Optimiser, "run": Run, "log": Log}
        made: dict[str, Any] = {key: _section(kind, values.pop(key, {}), key) for key, kind in sections.items()}
        if made["run"].start_from:
            made["run"] = replace(made["run"], start_from=str(folder / made["run"].start_from))
        plain = _section(_Plain, values, "", also=("data", *sections))
        return cls(data=tuple(sets), **asdict(plain), **made)


@dataclass(frozen=True, slots=True)
class _Plain:
    name: str = "uynet"
    version: str = "1.0"
    width: int = 16


def _check_name(name: str) -> None:
    if not re.fullmatch(NAME, name):
        raise BadInput(
            f"the training's name is {name!r}: it names files, so it must be letters, digits, '.', '_' and '-', a letter or digit first"
        )


def _section(kind: type[Any], values: Any, section: str, also: tuple[str, ...] = ()) -> Any:
    """One section as its dataclass; a key that it does not have, or a value of another type, is BadInput."""
    at = f"{section}." if section else ""
    if not isinstance(values, Mapping):
        raise BadInput(f"{section} must be a section, not {values!r}")
    types = get_type_hints(kind)
    for key, value in values.items():
        if key not in types:
            near = get_close_matches(key, (*types, *also), n=1)
            raise BadInput(f"unknown key {at}{key}" + (f"; did you mean {at}{near[0]}?" if near else ""))
        if not _fits(value, types[key]):
            raise BadInput(f"{at}{key} is {value!r}, expected {getattr(types[key], '__name__', types[key])}")
    missing = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    for key in missing:
        if key not in values:
            raise BadInput(f"{at}{key} is missing")
    return kind(**{key: float(value) if types[key] is float else value for key, value in values.items()})


def _fits(value: Any, kind: Any) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in (str, bool):
        return isinstance(value, kind)
    return isinstance(value, Mapping) and all(isinstance(k, str) and _fits(v, float) for k, v in value.items())


def _ranges(config: TrainConfig) -> list[tuple[str, float, float, float]]:
    run, optimiser, loss = config.run, config.optimiser, config.loss
    many = 1e12
    return [
        ("width", config.width, 1, 64), ("run.epochs", run.epochs, 1, 100_000),
        ("run.epoch_images", run.epoch_images, 0, many), ("run.pairs", run.pairs, 1, 4096),
        ("run.accumulate", run.accumulate, 1, run.pairs), ("run.checkpoint_every_epochs", run.checkpoint_every_epochs, 1, many),
        ("run.validation_images", run.validation_images, 2, many), ("run.window_share", run.window_share, 0, 1),
        ("run.window_px", run.window_px, 32, 224), ("run.full_mask_share", run.full_mask_share, 0, 1),
        ("run.threads", run.threads, 1, 1024), ("run.loaders", run.loaders, 0, 256), ("run.seed", run.seed, 0, 2**63 - 1),
        ("optimiser.learning_rate", optimiser.learning_rate, 1e-9, 10), ("optimiser.weight_decay", optimiser.weight_decay, 0, 10),
        ("optimiser.warmup_images", optimiser.warmup_images, 0, many), ("optimiser.cooldown", optimiser.cooldown, 0, 1),
        ("optimiser.ema", optimiser.ema, 0, 1), ("optimiser.clip_norm", optimiser.clip_norm, 1e-6, many),
        ("loss.mask", loss.mask, 0, 1000), ("loss.ranking", loss.ranking, 0, 1000), ("loss.label_smoothing", loss.label_smoothing, 0, 0.49),
    ]  # fmt: skip
