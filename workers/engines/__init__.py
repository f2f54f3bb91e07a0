"""The engines by name. Only the one asked for is imported, and none is ever replaced by another."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, cast

from farm.contracts import ModelCard
from farm.errors import BadInput
from workers.engines.base import Engine
from workers.engines.weights import check_weights

ENGINES: Mapping[str, str] = MappingProxyType(
    {
        "onnx": "workers.engines.onnx",
        "openvino": "workers.engines.openvino",
        "simulated": "workers.engines.simulated",
        "vart": "workers.engines.vart",
    }
)
"""Engine name -> the module that drives its runtime; each has `open_here` with the signature of `Opener`."""


class Opener(Protocol):
    """How the module of an engine opens it."""

    def __call__(
        self, weights: Path, card: ModelCard, *, threads: int, device: str | None, rate: float | None
    ) -> Engine: ...


def open_engine(
    name: str,
    weights: Path,
    card: ModelCard,
    *,
    threads: int = 1,
    device: str | None = None,
    rate: float | None = None,
) -> Engine:
    """Open the engine called `name` for the weights that `card` describes.

    `threads` is how many a CPU engine may use for one crop; `device` names the card or processor where an engine has
    several; `rate`, in crops per second, is the simulated card's alone. Raises BadInput for an unknown engine,
    EngineMissing where its runtime or device is not on this machine (with the command that installs it), BadModel where
    weights and card do not belong together or the engine cannot run them. Trying again helps with none of these.
    """
    if name not in ENGINES:
        raise BadInput(f"unknown engine {name!r}: choose one of {', '.join(sorted(ENGINES))}")
    if threads < 1:
        raise BadInput(f"engine {name}: threads is {threads}, expected 1 or more")
    check_weights(weights, card)
    opener = cast(Opener, import_module(ENGINES[name]).open_here)
    return opener(weights, card, threads=threads, device=device, rate=rate)
