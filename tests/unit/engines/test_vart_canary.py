"""The golden pictures and how answers to them are judged."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from card_stand_in import known_network, write_xmodel

from farm.contracts import ModelCard
from farm.errors import BadModel
from workers.engines.canary import Canary, golden_pictures


@pytest.fixture
def card(tmp_path: Path) -> ModelCard:
    return write_xmodel(tmp_path, known_network())[1]


def answers(pictures: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """What a sound card answers on lanes that were asked those pictures."""
    classes = np.array([10 * picture for picture in pictures], np.int8)
    masks = np.stack([np.full((224, 224), picture, np.int8) for picture in pictures])
    return classes, masks


def test_the_golden_pictures_are_these_for_ever() -> None:
    digest = hashlib.sha256(golden_pictures().tobytes()).hexdigest()
    assert digest == "2f7b5741bee19f980a55468be3aba6d848cf4e0bac2365a70943423ea1ab7e1c"


@pytest.mark.parametrize("lanes", [4, 6, 8])
def test_every_lane_is_asked_and_every_picture_dealt(card: ModelCard, lanes: int) -> None:
    canary = Canary(card, lanes)
    assert len(canary.dealt) == lanes
    assert set(canary.dealt) == {0, 1, 2, 3}
    assert canary.wrong(*answers(list(canary.dealt))) is None


def test_without_a_reference_the_first_answer_that_tells_the_pictures_apart_is_kept(card: ModelCard) -> None:
    canary = Canary(card, 8)
    assert canary.to_card() is None
    assert canary.wrong(*answers([0, 1, 2, 3, 0, 1, 2, 3])) is None
    assert canary.to_card()["class"] == [0, 10, 20, 30]
    assert canary.wrong(*answers([0, 1, 2, 3, 0, 1, 2, 2])) == "lanes [7] of 8 answer the golden pictures wrongly"


def test_a_card_that_answers_all_pictures_the_same_is_wrong_from_the_first(card: ModelCard) -> None:
    assert "the same" in Canary(card, 8).wrong(*answers([2] * 8))


def test_a_lane_that_differs_from_the_first_lanes_is_wrong_from_the_first(card: ModelCard) -> None:
    assert "lanes [5]" in Canary(card, 8).wrong(*answers([0, 1, 2, 3, 0, 3, 2, 3]))


def test_the_model_cards_reference_is_met_to_the_bit(card: ModelCard) -> None:
    first = Canary(card, 4)
    first.wrong(*answers([0, 1, 2, 3]))
    canary = Canary(replace(card, dpu={"canary": first.to_card()}), 6)
    sound = answers([0, 1, 2, 3, 0, 1])
    assert canary.wrong(*sound) is None
    sound[1][5, 100, 100] += 1
    assert "lanes [5] of 6" in canary.wrong(*sound)


@pytest.mark.parametrize(
    "reference",
    [
        {"class": [1, 2]},
        [1],
        {"class": [1, 2], "mask_sha256": ["a", "b"]},
        {"class": [1] * 4, "mask_sha256": ["a"] * 4},
    ],
    ids=["no masks", "a list", "too few", "all the same"],
)
def test_a_reference_that_cannot_judge_is_a_bad_model(card: ModelCard, reference: object) -> None:
    with pytest.raises(BadModel, match=r"model card known: dpu\.canary"):
        Canary(replace(card, dpu={"canary": reference}), 8)
