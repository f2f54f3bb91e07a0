"""The one model card that tests start from: every field has a plain value, and a test changes what it is about."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

from farm.contracts import ModelCard


def model_card(**changes: Any) -> ModelCard:
    """A card of no real weights; a positive logit means fake, FAKE is said from 0.9 and REAL up to 0.1."""
    values: dict[str, Any] = {
        "name": "known", "version": "1", "weights": "known.onnx", "sha256": "0" * 64, "width": 16, "input_name": "crops",
        "class_output": "class_logit", "mask_output": "mask_logit", "input_scale": 1 / 255, "input_offset": 0.0,
        "logit_polarity": "fake", "crop_margin": 0.25, "mask_threshold": 0.5, "temperature": 1.0, "bias": 0.0, "threshold": 0.9,
        "false_positive_rate": 0.01, "real_below": 0.1, "demonstration": True,
    }  # fmt: skip
    return ModelCard(**values | changes)


def write_card(folder: Path, name: str, weights: bytes, version: str = "1") -> Path:
    """Write weights and their card; the card's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.onnx").write_bytes(weights)
    card = model_card(
        name=name,
        version=version,
        weights=f"{name}.onnx",
        sha256=sha256(weights).hexdigest(),
        crop_margin=0.3,
        temperature=2.0,
        bias=0.5,
    )
    path = folder / f"{name}.json"
    path.write_text(card.to_json())
    return path
