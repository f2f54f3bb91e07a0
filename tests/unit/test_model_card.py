"""A model card that cannot be right is refused with the reason and the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from farm.contracts import ModelCard
from farm.errors import BadModel

SHIPPED = Path(__file__).parents[2] / "workers" / "models" / "uynet-w16.json"


@pytest.mark.parametrize("text", ["[]", "3", "null", "{"])
def test_a_file_that_is_no_json_object_is_named_in_the_refusal(tmp_path: Path, text: str) -> None:
    card = tmp_path / "card.json"
    card.write_text(text)
    with pytest.raises(BadModel, match=r"card\.json: .*model card (is one JSON object|does not parse)"):
        ModelCard.load(card)


def test_a_file_that_is_no_text_is_named_in_the_refusal(tmp_path: Path) -> None:
    card = tmp_path / "card.json"
    card.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadModel, match=r"card\.json cannot be read"):
        ModelCard.load(card)


@pytest.mark.parametrize(
    "name", ["input_scale", "input_offset", "crop_margin", "mask_threshold", "temperature", "bias"]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.5", None, True])
def test_a_figure_that_scores_are_computed_with_is_a_finite_number(name: str, value: object) -> None:
    values = json.loads(SHIPPED.read_text()) | {name: value}
    with pytest.raises(BadModel, match=f"{name} is .*, expected a finite number"):
        ModelCard.from_values(values)
