"""The one model card that tests start from: every field has a plain value, and a test changes what it is about."""

from __future__ import annotations

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
