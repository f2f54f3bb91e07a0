"""A training's configuration is checked key by key, and says which is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from farm.errors import BadInput
from trainer.config import TrainConfig
from trainer.feed import open_feed

EXAMPLE = Path(__file__).parents[3] / "trainer" / "configs" / "example.toml"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"widht": 4}, "unknown key widht; did you mean width"),
        ({"run": {"epoch": 4}}, r"unknown key run\.epoch; did you mean run\.epochs"),
        ({"width": "4"}, "width is '4', expected int"),
        ({"run": {"compile": 1}}, r"run\.compile is 1, expected bool"),
        ({"run": {"pairs": 0}}, r"run\.pairs is 0, it must be 1 to"),
        ({"loss": {"mask": float("nan")}}, r"loss\.mask is nan, it must be"),
        ({"run": {"precision": "fp8"}}, r"run\.precision is 'fp8'"),
        ({"data": []}, "names no data"),
        ({"data": [{}]}, r"data\.manifest is missing"),
    ],
)
def test_what_is_wrong_is_named_by_its_key(values: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        TrainConfig.from_values({"data": [{"manifest": "set"}]} | values)


def test_a_manifest_that_is_not_there_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere"):
        open_feed(TrainConfig.from_values({"data": [{"manifest": "nowhere"}]}, tmp_path))


def test_the_example_is_a_configuration() -> None:
    assert TrainConfig.load(EXAMPLE).data


def test_a_file_that_is_no_toml_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text("width = = 4")
    with pytest.raises(BadInput, match=r"t\.toml cannot be read"):
        TrainConfig.load(tmp_path / "t.toml")
