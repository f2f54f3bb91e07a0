"""The network's shape, cost and operators."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer.model import UYNet, estimate_macs


def macs_of(model: UYNet, side: int) -> int:
    """Multiply-accumulates counted while a picture passes through."""
    counted = 0

    def count(module: nn.Module, _: object, out: torch.Tensor) -> None:
        nonlocal counted
        if isinstance(module, nn.Conv2d):
            counted += out.numel() * module.in_channels * module.kernel_size[0] * module.kernel_size[1]
        elif isinstance(module, nn.ConvTranspose2d):
            counted += out.numel() * module.in_channels

    for module in model.modules():
        module.register_forward_hook(count)
    model.eval()(torch.zeros(1, 3, side, side))
    return counted


def test_a_crop_gives_one_class_logit_and_a_mask_of_its_own_size() -> None:
    class_logit, mask_logit = UYNet(width=2).eval()(torch.zeros(3, 3, 224, 224))
    assert class_logit.shape == (3, 1)
    assert mask_logit.shape == (3, 1, 224, 224)


def test_the_training_shortcut_gives_the_same_class_and_a_mask_of_a_quarter_side() -> None:
    model = UYNet(width=2).eval()
    image = torch.randn(2, 3, 224, 224)
    quarter = model.forward_quarter(image)
    assert quarter.mask_logit.shape == (2, 1, 56, 56)
    assert torch.allclose(quarter.class_logit, model(image).class_logit)


@pytest.mark.parametrize(("width", "gmac"), [(16, 2.3), (32, 9.2), (64, 36.9)])
def test_the_cost_is_that_of_the_design(width: int, gmac: float) -> None:
    assert estimate_macs(width) / 1e9 == pytest.approx(gmac, abs=0.05)


def test_the_estimated_cost_is_the_counted_one() -> None:
    assert estimate_macs(4) == macs_of(UYNet(width=4), 224)


def test_no_convolution_exceeds_the_cards_1024_channels_at_the_seeds_width() -> None:
    with torch.device("meta"):
        widest = max(m.out_channels for m in UYNet(width=64).modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d))
    assert widest == 1024


def test_the_class_head_pools_by_two_and_then_by_seven() -> None:
    model = UYNet(width=2)
    assert (model.pool_2.kernel_size, model.pool_7.kernel_size) == (2, 7)
    pools = [m.kernel_size for m in model.modules() if isinstance(m, nn.MaxPool2d | nn.AvgPool2d)]
    assert 14 not in pools


def test_outputs_are_logits_and_leave_the_unit_interval() -> None:
    torch.manual_seed(0)
    model = UYNet(width=2).eval()
    model.class_head.bias.data.fill_(7.0)
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 224, 224)).class_logit.item() > 1.0
