"""A small autoencoder that re-draws faces, so that fakes carry the traces of a generator and not only those of blending.

It learns from the training side's reals alone; what it draws of every real (those of the other sides are new to it) at several
stages of its training is kept beside the manifest. It is thrown away afterwards. Its pictures are softer and slightly wrong in
the way of neural face swaps: learnt upsampling, few thousand numbers for a face. R side of the re-drawn inner face, N crops.
"""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from farm.errors import BadInput
from trainer.manifest import MANIFEST, CropSet
from trainer.splits import SPLIT

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


REDRAWN, REDRAWN_FROM = "redrawn.npy", "redrawn.json"


def redraw(crops: CropSet, train_rows: NDArray[np.intp], steps: int = 800, batch: int = 32, seed: int = 0) -> Path:
    """Train on the reals among `train_rows` for so many batches and write DIR/redrawn.npy: (stages, N, R, R, 3) uint8.

    Row i is the manifest's row i; rows of fakes stay black, nobody blends from them. Returns the path.
    Raises BadInput if there is no real to learn from.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    reals, learnt_from = np.flatnonzero(~crops.fake), train_rows[~crops.fake[train_rows]]
    if not len(learnt_from):
        raise BadInput(f"{crops.folder} has no real on its training side, so nothing can learn to re-draw faces")
    models = [Autoencoder(True), Autoencoder(False)]
    optimisers = [torch.optim.AdamW(model.parameters(), lr=2e-3) for model in models]
    path, part = crops.folder / REDRAWN, crops.folder / f"{REDRAWN}.part"
    shape = (len(STAGES), len(crops), REDRAWN_PX, REDRAWN_PX, 3)
    # Mapped, so that a large set costs disk and not memory.
    drawn = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
    done = 0
    for number, stage in enumerate(STAGES):
        for _ in range(done, round(steps * stage)):
            picture = _tensor(_inner_faces(crops, rng.choice(learnt_from, batch)))
            for model, optimiser in zip(models, optimisers, strict=True):
                _step(model, optimiser, picture)
        done = round(steps * stage)
        # Odd rows by one decoder, even rows by the other, and the other way round at the next stage: both kinds of trace.
        for parity, model in enumerate(models):
            _draw(model, crops, reals[reals % 2 == (number + parity) % 2], drawn[number])
    drawn.flush()
    part.replace(path)
    (crops.folder / REDRAWN_FROM).write_text(json.dumps(_origin(crops) | {"steps": steps, "seed": seed}))
    return path


def open_redrawn(crops: CropSet) -> NDArray[np.uint8]:
    """Map a set's re-drawn faces, (stages, N, R, R, 3) uint8.

    Raises BadInput where there are none, or they were drawn from another manifest or another split: the generator would have
    learnt from people who are held out now.
    """
    try:
        made_from = json.loads((crops.folder / REDRAWN_FROM).read_text())
        drawn = np.load(crops.folder / REDRAWN, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{crops.folder} has no re-drawn faces ({error}); run `trainer redraw {crops.folder}`"
        ) from error
    changed = [name for name, digest in _origin(crops).items() if made_from.get(name) != digest]
    if changed or drawn.shape[1] != len(crops):
        raise BadInput(
            f"{crops.folder / REDRAWN} is stale, {' and '.join(changed) or 'its length'} changed; run `trainer redraw {crops.folder}`"
        )
    return np.asarray(drawn)


def _origin(crops: CropSet) -> dict[str, str | None]:
    """File name -> SHA-256 of what decides which faces are learnt from; None where there is no such file."""
    files = {name: crops.folder / name for name in (MANIFEST, SPLIT)}
    return {
        name: hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else None for name, file in files.items()
    }


def _inner_faces(crops: CropSet, rows: NDArray[np.intp]) -> NDArray[np.uint8]:
    low, high = INNER_PX
    size = (REDRAWN_PX, REDRAWN_PX)
    inner = [cv2.resize(crops.crop(int(r))[low:high, low:high], size, interpolation=cv2.INTER_AREA) for r in rows]
    return np.asarray(np.stack(inner), np.uint8)


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
def _draw(model: nn.Module, crops: CropSet, rows: NDArray[np.intp], into: NDArray[np.uint8]) -> None:
    model.eval()
    for start in range(0, len(rows), 64):
        some = rows[start : start + 64]
        drawn = model(_tensor(_inner_faces(crops, some))).clamp(0, 1).mul(255).round().byte()
        into[some] = drawn.permute(0, 2, 3, 1).numpy()
    model.train()
