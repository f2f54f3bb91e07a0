"""Every real of a set re-drawn by a family of small generators, so that fakes carry a generator's traces and not only a blend's.

The generators learn from the training side's reals alone; what they draw of every real (those of the other sides are new to them)
is kept beside the manifest. Each draws half of the rows when half trained: softer, as poor swaps are. N crops, R a generator's side.

    DIR/redrawn/NAME.npy     (N, R, R, 3) uint8, what the generator NAME made of row i; rows of fakes stay black
    DIR/redrawn/origin.json  what they were made from and by; written last, its presence says that they are whole
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from farm.errors import BadInput
from trainer.generators import GENERATORS, Apprentice, Generator
from trainer.manifest import MANIFEST, CropSet
from trainer.precision import native_bf16
from trainer.splits import SPLIT

INNER_PX = (24, 200)
"""Rows and columns of the crop that are re-drawn: the face without the crop's outermost frame."""
REDRAWN, ORIGIN = "redrawn", "origin.json"


def redraw(
    crops: CropSet,
    train_rows: NDArray[np.intp],
    steps: int = 300,
    batch: int = 16,
    seed: int = 0,
    generators: Sequence[Generator] = GENERATORS,
) -> Path:
    """Train every generator on the reals among `train_rows` for so many batches, let it draw all reals; returns DIR/redrawn.

    Raises BadInput if there is no real to learn from.
    """
    learnt_from = train_rows[~crops.fake[train_rows]]
    if not len(learnt_from):
        raise BadInput(f"{crops.folder} has no real on its training side, so nothing can learn to re-draw faces")
    folder = crops.folder / REDRAWN
    folder.mkdir(exist_ok=True)
    (folder / ORIGIN).unlink(missing_ok=True)
    told = [_redraw(generator, crops, learnt_from, steps, batch, seed) for generator in generators]
    origin = _origin(crops, generators) | {"steps": steps, "batch": batch, "seed": seed, "distances": told}
    (folder / ORIGIN).write_text(json.dumps(origin, indent=1))
    return folder


def _redraw(
    generator: Generator, crops: CropSet, learnt_from: NDArray[np.intp], steps: int, batch: int, seed: int
) -> float:
    """Train one generator and write its file; the mean distance of the last tenth of its steps."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    apprentice, side, reals = Apprentice(generator), generator.side_px, np.flatnonzero(~crops.fake)
    path = crops.folder / REDRAWN / f"{generator.name}.npy"
    # Mapped, so that a large set costs disk and not memory.
    drawn = np.lib.format.open_memmap(path, "w+", np.uint8, (len(crops), side, side, 3))
    distances = []
    for number in range(steps):
        picture = _tensor(_inner_faces(crops, rng.choice(learnt_from, batch), side))
        picture = picture.flip(3) if rng.random() < 0.5 else picture
        with torch.autocast("cpu", torch.bfloat16, enabled=native_bf16("cpu")):
            distances.append(apprentice.learn(picture))
        if number + 1 == steps // 2:
            _draw(apprentice.network, crops, reals[reals % 2 == 0], drawn)
    _draw(apprentice.network, crops, reals if steps < 2 else reals[reals % 2 == 1], drawn)
    drawn.flush()
    return round(float(np.mean(distances[-max(1, steps // 10) :])), 4)


def open_redrawn(crops: CropSet, unseen: bool = False) -> tuple[NDArray[np.uint8], ...]:
    """Map a set's re-drawn faces, (N, R, R, 3) uint8 per generator: those for training, or those kept out of it.

    Raises BadInput where there are none, or they were drawn from another manifest or another split: the generators would have
    learnt from people who are held out now.
    """
    folder = crops.folder / REDRAWN
    again = f"run `trainer redraw {crops.folder}`"
    try:
        made_from = json.loads((folder / ORIGIN).read_text())
        chosen = [one["name"] for one in made_from["generators"] if one["unseen"] == unseen]
        drawn = tuple(np.load(folder / f"{name}.npy", mmap_mode="r") for name in chosen)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{crops.folder} has no re-drawn faces ({error}); {again}") from error
    changed = [name for name, digest in _files(crops).items() if made_from.get(name) != digest]
    if changed or any(len(one) != len(crops) for one in drawn):
        raise BadInput(f"{folder} is stale, {' and '.join(changed) or 'its length'} changed; {again}")
    if not drawn:
        raise BadInput(f"{folder} holds nothing of a generator {'kept out of' if unseen else 'for'} training; {again}")
    return drawn


def _origin(crops: CropSet, generators: Sequence[Generator]) -> dict[str, Any]:
    return _files(crops) | {"generators": [asdict(generator) for generator in generators]}


def _files(crops: CropSet) -> dict[str, str | None]:
    """File name -> SHA-256 of what decides which faces are learnt from; None where there is no such file."""
    files = {name: crops.folder / name for name in (MANIFEST, SPLIT)}
    return {
        name: hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else None for name, file in files.items()
    }


def _inner_faces(crops: CropSet, rows: NDArray[np.intp], side: int) -> NDArray[np.uint8]:
    low, high = INNER_PX
    inner = [
        cv2.resize(crops.crop(int(r))[low:high, low:high], (side, side), interpolation=cv2.INTER_AREA) for r in rows
    ]
    return np.asarray(np.stack(inner), np.uint8)


def _tensor(batch: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(batch).permute(0, 3, 1, 2).float().div(255).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def _draw(network: nn.Module, crops: CropSet, rows: NDArray[np.intp], into: NDArray[np.uint8]) -> None:
    network.eval()
    side = into.shape[1]
    for start in range(0, len(rows), 64):
        some = rows[start : start + 64]
        drawn = network(_tensor(_inner_faces(crops, some, side))).clamp(0, 1).mul(255).round().byte()
        into[some] = drawn.permute(0, 2, 3, 1).numpy()
    network.train()
