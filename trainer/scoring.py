"""One way to ask any network: a checkpoint in torch, or exported weights on one of the farm's engines. Knows no label."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from farm.contracts import ModelCard
from farm.errors import BadInput, BadModel

TORCH = "torch"
"""The engine of checkpoints; every other name is one of the farm's engines and takes a model card."""
Score = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float64], NDArray[np.bool_]]]


@dataclass(frozen=True, slots=True)
class Scorer:
    """A network that is ready to score."""

    #: (B, S, S, 3) uint8 RGB -> (B,) logits, fake positive, and (B, S, S) masks, True = manipulated
    score: Score
    close: Callable[[], None]
    #: what it is: model, version, engine, precision, sha256 of what is run
    facts: dict[str, Any]
    #: p = sigmoid((logit - bias) / temperature), FAKE at or above threshold; a checkpoint knows none of them: 1, 0, .5
    temperature: float = 1.0
    bias: float = 0.0
    threshold: float = 0.5
    card: ModelCard | None = field(default=None)


def open_scorer(model: str, engine: str, threads: int = 1, device: str = "cpu") -> Scorer:
    """Open a checkpoint (engine "torch"), a model card's path or the name of a shipped model (any engine of the farm).

    Without an engine a checkpoint gets "torch", anything else "onnx". Raises BadInput, BadModel and EngineMissing, as the engines do.
    """
    engine = engine or (TORCH if model.endswith(".pt") else "onnx")
    if engine == TORCH:
        return _torch(Path(model), threads, device)
    if model.endswith(".pt"):
        raise BadInput(
            f"{model} is a checkpoint: the engine {engine} scores exported models, `trainer export` makes one"
        )
    from workers.engines import open_engine
    from workers.engines.weights import SHIPPED

    path = Path(model) if model.endswith(".json") else SHIPPED / f"{model}.json"
    if not path.exists():
        shipped = sorted(card.stem for card in SHIPPED.glob("*.json"))
        raise BadInput(
            f"{model} is no model card's path (.json), no checkpoint (.pt) and no shipped model's name ({', '.join(shipped)})"
        )
    card = ModelCard.load(path)
    opened = open_engine(
        engine, path.with_name(card.weights), card, threads=threads, device=None if device == "cpu" else device
    )

    def score(crops: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        said = opened.predict(crops)
        return said.logits.astype(np.float64), said.masks

    facts = {"model": card.name, "version": card.version, "engine": engine, "device": opened.spec.device}
    facts |= {"precision": opened.spec.precision, "sha256": opened.spec.weights_sha256 or card.sha256}
    return Scorer(score, opened.close, facts, card.temperature, card.bias, card.threshold, card)


def _torch(path: Path, threads: int, device: str) -> Scorer:
    import torch

    from trainer.checkpoint import load_network
    from trainer.dataset import to_input

    torch.set_num_threads(threads)
    network = load_network(path).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def score(crops: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        image = to_input(torch.from_numpy(crops).to(device).permute(0, 3, 1, 2)).contiguous(
            memory_format=torch.channels_last
        )
        out = network(image)
        logits = out.class_logit[:, 0].double().cpu().numpy()
        if not np.isfinite(logits).all():
            raise BadModel(f"checkpoint {path} answers with NaN or infinity")
        return logits, (out.mask_logit[:, 0] > 0).cpu().numpy()

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Scorer(
        score,
        lambda: None,
        {"model": path.name, "version": "", "engine": TORCH, "device": device, "precision": "fp32", "sha256": digest},
    )
