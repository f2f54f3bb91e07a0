"""What every way to quantize hands back: the weights file, and what the card has to say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Made:
    """int8 weights that were just made, not yet measured."""

    content: bytes
    #: the file's ending, with the dot
    suffix: str
    #: name and version of what made it, and how
    made_with: str
    #: entries for the model card's `dpu`
    dpu: Mapping[str, Any] = field(default_factory=dict)
