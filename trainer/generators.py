"""The small generators that re-draw faces: as unlike each other as they can be made cheaply. Knows no data set.

Each is an autoencoder that is thrown away after it has drawn. They differ in what leaves traces: the side R that is drawn, how
narrow the bottleneck is, how the decoder goes up, and whether a patch critic sharpened it. Two stay out of training: how well their
fakes are found says how far a network has got beyond the generators it knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Generator:
    """How one is built. Its name names its file."""

    name: str
    #: R, the side in pixels of the inner face that is drawn
    side_px: int
    #: channels after each halving; the last are the bottleneck's
    channels: tuple[int, ...]
    #: "transposed" convolution, "shuffle" of channels into pixels, or "nearest" or "bilinear" interpolation and a convolution
    upsampling: str
    #: a second network that tells drawn patches from real ones takes part in the training
    critic: bool = False
    #: kept out of training
    unseen: bool = False


GENERATORS = (
    Generator("transposed-96", 96, (16, 32, 48), "transposed"),
    Generator("nearest-96", 96, (16, 32, 48), "nearest"),
    Generator("transposed-64", 64, (24, 24), "transposed"),
    Generator("bilinear-128", 128, (12, 16), "bilinear"),
    Generator("nearest-112-critic", 112, (16, 24), "nearest", critic=True),
    Generator("shuffle-80", 80, (16, 20), "shuffle", unseen=True),
    Generator("shuffle-112-critic", 112, (12, 24, 40), "shuffle", critic=True, unseen=True),
)
"""Bottlenecks at R/4 draw almost what they saw and leave faint traces; those at R/8 draw softer faces."""

CRITIC_WEIGHT = 0.02
"""Of the critic's word beside the distance to the picture; the distance is about .05 at the end."""


def build(generator: Generator) -> nn.Sequential:
    """(B, 3, R, R) in [0, 1] -> the same, re-drawn."""
    layers: list[nn.Module] = []
    for c_in, c_out in pairwise((3, *generator.channels)):
        layers += [nn.Conv2d(c_in, c_out, 4, stride=2, padding=1), nn.BatchNorm2d(c_out), nn.LeakyReLU(0.1)]
    rising = (*generator.channels[::-1], generator.channels[0])
    for c_in, c_out in pairwise(rising):
        layers += [*_UP[generator.upsampling](c_in, c_out), nn.BatchNorm2d(c_out), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers, nn.Conv2d(rising[-1], 3, 3, padding=1))


_UP: dict[str, Callable[[int, int], list[nn.Module]]] = {
    "transposed": lambda c_in, c_out: [nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1)],
    "shuffle": lambda c_in, c_out: [nn.Conv2d(c_in, 4 * c_out, 3, padding=1), nn.PixelShuffle(2)],
    "nearest": lambda c_in, c_out: [nn.Upsample(scale_factor=2), nn.Conv2d(c_in, c_out, 3, padding=1)],
    "bilinear": lambda c_in, c_out: [
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        nn.Conv2d(c_in, c_out, 3, padding=1),
    ],
}


def build_critic() -> nn.Sequential:
    """(B, 3, R, R) -> a word per patch of 16 px: above 0 for real (Isola et al., "pix2pix", 2017)."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
        nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.BatchNorm2d(32), nn.LeakyReLU(0.2),
        nn.Conv2d(32, 1, 3, padding=1),
    )  # fmt: skip


class Apprentice:
    """A generator in training."""

    def __init__(self, generator: Generator) -> None:
        self.generator, self.network = generator, build(generator)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=2e-3)
        self.critic = build_critic() if generator.critic else None
        if self.critic:
            self.critic_optimiser = torch.optim.AdamW(self.critic.parameters(), lr=5e-4, betas=(0.5, 0.999))

    def learn(self, picture: Tensor) -> float:
        """One step on a batch (B, 3, R, R); the distance of what it drew to what it saw."""
        drawn = self.network(picture).float()
        # The gradient term keeps edges; without it a face this small comes out as a smear.
        distance = (drawn - picture).abs().mean() + sum(
            (drawn.diff(dim=d) - picture.diff(dim=d)).abs().mean() for d in (2, 3)
        )
        loss = distance
        if self.critic:
            self._judge(picture, drawn.detach())
            loss = distance - CRITIC_WEIGHT * self.critic(drawn).mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return float(distance.detach())

    def _judge(self, picture: Tensor, drawn: Tensor) -> None:
        """A step of the critic: the hinge loss (Lim and Ye, "Geometric GAN", 2017)."""
        assert self.critic is not None
        loss = functional.relu(1 - self.critic(picture)).mean() + functional.relu(1 + self.critic(drawn)).mean()
        self.critic_optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.critic_optimiser.step()
