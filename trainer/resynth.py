"""A small autoencoder that re-draws faces, so that fakes carry the traces of a generator and not only those of blending.

It is trained on the training persons' crops alone; what it draws of everybody (validation persons are new to it) at several
stages of its training is kept beside the crop cache. It is thrown away afterwards. Its pictures are softer and slightly wrong in
the way of neural face swaps: learnt upsampling, few thousand numbers for a face. R side of the re-drawn inner face.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer.prepare import Faces

INNER_PX = (24, 200)
"""Rows and columns of the crop that are re-drawn: the face without the crop's outermost frame."""
REDRAWN_PX = 96
"""R: half to two thirds of the crop's own resolution, as swap networks of 128 px have."""
STAGES = (0.35, 0.65, 1.0)
"""Shares of the training after which everybody is re-drawn: from soft to detailed."""


class Autoencoder(nn.Module):
    """(B, 3, R, R) in [0, 1] -> the same, through a bottleneck of 48 channels at R/8. `learnt_upsampling` picks the decoder."""

    def __init__(self, learnt_upsampling: bool) -> None:
        super().__init__()
        down, up = [3, 16, 32, 48], [48, 48, 32, 16]
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise(down):
            layers += [nn.Conv2d(c_in, c_out, 4, stride=2, padding=1), nn.BatchNorm2d(c_out), nn.LeakyReLU(0.1)]
        for c_in, c_out in pairwise(up):
            if learnt_upsampling:
                layers += [nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1)]
            else:
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(c_in, c_out, 3, padding=1)]
            layers += [nn.BatchNorm2d(c_out), nn.LeakyReLU(0.1)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(up[-1], 3, 3, padding=1))

    def forward(self, picture: Tensor) -> Tensor:
        out: Tensor = self.layers(picture)
        return out


def redraw(faces: Faces, train_rows: NDArray[np.intp], cache: Path, steps: int = 800, seed: int = 0) -> Path:
    """Train for so many batches of 32 and write `redrawn.npy`: (stages, N, R, R, 3) uint8. Returns its path."""
    torch.manual_seed(seed)
    inner = _inner_faces(faces)
    models = [Autoencoder(True), Autoencoder(False)]
    rng = np.random.default_rng(seed)
    stages: list[NDArray[np.uint8]] = []
    done = 0
    optimisers = [torch.optim.AdamW(model.parameters(), lr=2e-3) for model in models]
    for stage in STAGES:
        while done < steps * stage:
            done += 1
            batch = inner[rng.choice(train_rows, 32)]
            for model, optimiser in zip(models, optimisers, strict=True):
                _step(model, optimiser, _tensor(batch))
        # Odd rows by one decoder, even rows by the other: both kinds of upsampling trace, and no more memory.
        both = [_draw(model, inner) for model in models]
        stages.append(np.where(np.arange(len(inner))[:, None, None, None] % 2 == len(stages) % 2, both[0], both[1]))
    path = cache / "redrawn.npy"
    np.save(path, np.stack(stages))
    return path


def _inner_faces(faces: Faces) -> NDArray[np.uint8]:
    import cv2

    low, high = INNER_PX
    size = (REDRAWN_PX, REDRAWN_PX)
    return np.stack([cv2.resize(crop[low:high, low:high], size, interpolation=cv2.INTER_AREA) for crop in faces.crops])


def _tensor(batch: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(batch).permute(0, 3, 1, 2).float().div(255).contiguous(memory_format=torch.channels_last)


def _step(model: nn.Module, optimiser: torch.optim.Optimizer, picture: Tensor) -> None:
    if torch.rand(()) < 0.5:
        picture = picture.flip(3)
    with torch.autocast("cpu", torch.bfloat16):
        drawn = model(picture)
    drawn = drawn.float()
    # The gradient term keeps edges; without it a face this small comes out as a smear.
    error = sum(
        ((drawn.diff(dim=d) - picture.diff(dim=d)).abs().mean() for d in (2, 3)), (drawn - picture).abs().mean()
    )
    optimiser.zero_grad()
    error.backward()
    optimiser.step()


@torch.no_grad()
def _draw(model: nn.Module, inner: NDArray[np.uint8]) -> NDArray[np.uint8]:
    model.eval()
    drawn = [model(_tensor(inner[i : i + 64])).clamp(0, 1).mul(255).round().byte() for i in range(0, len(inner), 64)]
    model.train()
    return torch.cat(drawn).permute(0, 2, 3, 1).contiguous().numpy()
