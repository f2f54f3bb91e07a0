"""What a training wants: fake and real told apart, a fake above its own original, and where it was manipulated. Knows no data set.

B crops in a batch: B / 2 reals, then B / 2 fakes; fake i was made from real i where it has a twin.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from trainer.config import Loss
from trainer.model import Logits

DICE_SMOOTH = 50.0
"""Pixels added above and below the fraction, so that an empty mask has a gradient (Milletari et al., "V-Net", 2016)."""


class Losses(NamedTuple):
    """The parts, each a scalar; `total` is their weighted sum."""

    total: Tensor
    classes: Tensor
    ranking: Tensor
    mask: Tensor


def joint_loss(logits: Logits, masks: Tensor, mask_known: Tensor, weights: Loss) -> Losses:
    """Loss of a batch; masks (B, 1, S', S') of the mask logits' side, in [0, 1]; mask_known (B,) bool: others carry no mask loss."""
    scores = logits.class_logit[:, 0].float()
    half = len(scores) // 2
    labels = torch.cat([torch.zeros(half), torch.ones(half)]).to(scores)
    smooth = weights.label_smoothing
    classes = functional.binary_cross_entropy_with_logits(scores, labels * (1 - 2 * smooth) + smooth)
    ranking = functional.softplus(scores[:half] - scores[half:]).mean()
    mask = _mask_loss(logits.mask_logit.float(), masks, mask_known)
    return Losses(classes + weights.ranking * ranking + weights.mask * mask, classes, ranking, mask)


def _mask_loss(where: Tensor, masks: Tensor, known: Tensor) -> Tensor:
    target, share = masks.to(where), known.to(where)
    entropy = functional.binary_cross_entropy_with_logits(where, target, reduction="none").mean((1, 2, 3))
    p = torch.sigmoid(where)
    overlap, area = (p * target).sum((1, 2, 3)), p.sum((1, 2, 3)) + target.sum((1, 2, 3))
    dice = 1 - (2 * overlap + DICE_SMOOTH) / (area + DICE_SMOOTH)
    return ((entropy + 0.5 * dice) * share).sum() / share.sum().clamp(min=1)
