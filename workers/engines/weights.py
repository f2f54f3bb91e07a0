"""Whether weights are those of their card, and where the int8 weights of a model are. Knows files and cards, no runtime."""

from __future__ import annotations

import hashlib
from pathlib import Path

from farm.contracts import ModelCard
from farm.errors import BadModel

SHIPPED = Path(__file__).parent.parent / "models"
"""The folder of the weights that come with the farm."""
QUANTIZED_FROM = "quantized_from"
"""Entry of an int8 card's `training`: sha256 of the weights it was made from."""


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

    Raises BadModel where there are none made from these weights (saying how to make them), or where they are damaged.
    """
    if QUANTIZED_FROM in card.training:
        return weights, card
    strangers = []
    for folder in (weights.parent, SHIPPED):
        path = int8_card_path(folder, card)
        if not path.exists():
            continue
        found = ModelCard.load(path)
        if found.training.get(QUANTIZED_FROM) == card.sha256:
            check_weights(path.with_name(found.weights), found)
            return path.with_name(found.weights), found
        strangers.append(f"; {path} was made from other weights")
    raise BadModel(
        f"the openvino engine runs int8 weights alone, and model {card.name} {card.version} has none{''.join(strangers)}. "
        "Make them with `trainer quantize CARD.json --manifest SET`, SET being a prepared set of held-out people"
    )
