"""Generators of every make draw what they saw, better the longer they learn."""

from __future__ import annotations

import pytest
import torch

from trainer.generators import GENERATORS, Apprentice, Generator, build


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda generator: generator.name)
def test_a_generator_draws_a_picture_of_its_own_side(generator: Generator) -> None:
    side = generator.side_px
    assert build(generator)(torch.rand(2, 3, side, side)).shape == (2, 3, side, side)


@pytest.mark.parametrize("upsampling", ["transposed", "nearest", "bilinear", "shuffle"])
@pytest.mark.parametrize("critic", [False, True])
def test_a_generator_learns(upsampling: str, critic: bool) -> None:
    torch.manual_seed(0)
    apprentice = Apprentice(Generator("small", 32, (8, 8), upsampling, critic=critic))
    picture = torch.nn.functional.interpolate(torch.rand(4, 3, 4, 4), 32, mode="bilinear")
    distances = [apprentice.learn(picture) for _ in range(25)]
    assert distances[-1] < 0.5 * distances[0]


def test_families_of_training_and_unseen_ones_share_no_way_up() -> None:
    seen, unseen = ({one.upsampling for one in GENERATORS if one.unseen is kept_out} for kept_out in (False, True))
    assert seen and unseen and not seen & unseen
