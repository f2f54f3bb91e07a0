"""Whether weights are those of their card, and where the int8 weights of a model are. Knows files and cards, no runtime."""

from __future__ import annotations

import hashlib
from pathlib import Path

from farm.contracts import ModelCard
from farm.errors import BadModel

SHIPPED = Path(__file__).parent.parent / "models"
"""The folder of the weights that come with the farm."""


def check_weights(weights: Path, card: ModelCard) -> None:
    """Raise BadModel unless the file's sha256 is the card's."""
    try:
        with weights.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadModel(f"weights {weights} of model {card.name} cannot be read: {error}") from error
    if found != card.sha256:
        raise BadModel(
            f"weights {weights} have sha256 {found}, model card {card.name} {card.version} says {card.sha256}: "
            "take the card and the weights of one version"
        )


def int8_card_path(folder: Path, card: ModelCard) -> Path:
    """Where the card of the int8 weights of `card` stands, for weights in `folder`."""
    return folder / "int8" / f"{Path(card.weights).stem}.json"


def int8_weights(weights: Path, card: ModelCard) -> tuple[Path, ModelCard]:
    """Find the int8 weights of `card`: these very ones, those in `int8/` beside them, or the shipped ones.

    Raises BadModel where there are none (saying how to make them), where they were made from other weights, or are damaged.
    """
    if card.training.get("quantized_from"):
        return weights, card
    for folder in (weights.parent, SHIPPED):
        path = int8_card_path(folder, card)
        if path.exists():
            found = ModelCard.load(path)
            _check_origin(path, found, card)
            check_weights(path.with_name(found.weights), found)
            return path.with_name(found.weights), found
    raise BadModel(
        f"model {card.name} {card.version} has no int8 weights in {weights.parent / 'int8'}; the openvino engine runs nothing else. "
        "Make them with: python -m workers.engines.quantize CARD.json (needs pip install 'nncf>=3.4' 'openvino>=2026.4')"
    )


def _check_origin(path: Path, found: ModelCard, card: ModelCard) -> None:
    origin = found.training.get("quantized_from")
    if origin != card.sha256:
        raise BadModel(
            f"{path} was quantized from weights {origin}, not from those of {card.name} {card.version} ({card.sha256}): "
            "make it again with: python -m workers.engines.quantize CARD.json"
        )
