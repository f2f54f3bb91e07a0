"""U-YNet: one U-Net backbone whose bottleneck says fake or real and whose decoder says where. Knows no data and no loss.

Letters: B crops, S side in pixels (224), W base width (the seed's is 64, the shipped one's 16).
Only operators that a VCK5000's DPU runs are used: 3x3 convolutions up to 1024 channels, 2x2 max pooling, 2x2 stride-2
transposed convolutions, channel concatenation, pools of 2 and 7, dense layers written as 1x1 convolutions. The seed's fifth
encoder level is never called there and holds 64 % of its parameters, so it does not exist here.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

LEVELS = 4
"""Halvings between the crop and the bottleneck: 224 -> 14."""


class Logits(NamedTuple):
    """Raw outputs; a positive class logit means fake, a positive mask logit means manipulated here."""

    #: (B, 1)
    class_logit: Tensor
    #: (B, 1, S, S), or (B, 1, S/4, S/4) from `UYNet.forward_quarter`
    mask_logit: Tensor


def _conv_pair(c_in: int, c_out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for c in (c_in, c_out):
        layers += [nn.Conv2d(c, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UYNet(nn.Module):
    """The network. Input (B, 3, S, S) float, S a multiple of 32; what is exported wants S = 224 exactly."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width = width
        channels = [width << level for level in range(LEVELS + 1)]
        self.encoder = nn.ModuleList(
            [_conv_pair(c_in, c_out) for c_in, c_out in zip([3, *channels], channels, strict=False)]
        )
        rising = channels[::-1]
        self.raise_ = nn.ModuleList([nn.ConvTranspose2d(c, c // 2, 2, stride=2) for c in rising[:-1]])
        self.decoder = nn.ModuleList([_conv_pair(c, c // 2) for c in rising[:-1]])
        self.mask_head = nn.Conv2d(width, 1, 1)
        #: training only: supervises the decoder at a quarter of the side for half of the time it costs; not exported
        self.quarter_head = nn.Conv2d(4 * width, 1, 1)
        self.halve = nn.MaxPool2d(2)
        # One 14x14 pool does not exist on the 8PE DPU (it has 1, 2, 3 and 7).
        self.pool_2 = nn.MaxPool2d(2)
        self.pool_7 = nn.AvgPool2d(7)
        self.dense = nn.Conv2d(channels[-1], 4 * width, 1)
        self.dropout = nn.Dropout(0.2)
        self.class_head = nn.Conv2d(4 * width, 1, 1)

    def encode(self, image: Tensor) -> list[Tensor]:
        """(B, 3, S, S) -> the features of every level, finest first: (B, W, S, S), (B, 2W, S/2, S/2) ... (B, 16W, S/16, S/16)."""
        features = [self.encoder[0](image)]
        for block in list(self.encoder)[1:]:
            features.append(block(self.halve(features[-1])))
        return features

    def classify(self, bottleneck: Tensor) -> Tensor:
        """The coarsest features -> (B, 1) class logits."""
        pooled = self.pool_2(bottleneck)
        # Only windows of a crop, as the early training sees them, come in another size than 7x7.
        pooled = self.pool_7(pooled) if pooled.shape[-1] == 7 else pooled.mean((2, 3), keepdim=True)
        return cast(Tensor, self.class_head(self.dropout(torch.relu(self.dense(pooled)))).flatten(1))

    def decode(self, features: list[Tensor], levels: int) -> Tensor:
        """Features of every level -> those of the decoder after so many doublings of the side."""
        x = features[-1]
        for level in range(levels):
            x = self.decoder[level](torch.cat([self.raise_[level](x), features[LEVELS - 1 - level]], dim=1))
        return x

    def forward(self, image: Tensor) -> Logits:
        """Score crops: (B, 3, S, S) -> class (B, 1) and mask (B, 1, S, S) logits."""
        features = self.encode(image)
        return Logits(self.classify(features[-1]), self.mask_head(self.decode(features, LEVELS)))

    def forward_quarter(self, image: Tensor) -> Logits:
        """As `forward`, but the decoder stops at S/4: about twice as fast on a CPU, and enough for most training steps."""
        features = self.encode(image)
        return Logits(self.classify(features[-1]), self.quarter_head(self.decode(features, LEVELS - 2)))


def estimate_macs(width: int, side_px: int = 224) -> int:
    """Multiply-accumulates of one exported forward pass at a base width, without running it."""
    macs, c_in, side = 0, 3, side_px
    for level in range(LEVELS + 1):
        c = width << level
        macs += 9 * side * side * c * (c_in + c)
        if level < LEVELS:
            # Coming back up at this side: a transposed convolution from 2c to c, then a pair over c + c channels.
            macs += side * side * 2 * c * c + 9 * side * side * c * (2 * c + c)
            side //= 2
        c_in = c
    return macs + side_px * side_px * width + (width << LEVELS) * 4 * width + 4 * width
