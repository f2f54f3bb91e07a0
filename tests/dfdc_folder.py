"""A small folder of the shape that DFDC is downloaded in, from the project's own sample portrait. Knows no trainer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from farm.samples import FACE, astronaut, manipulated, moving, write_clip

FRAMES = 24
WIDTH = 320


def write_dfdc(root: Path, parts: int = 2, frames: int = FRAMES) -> Path:
    """Write `dfdc_train_part_0` to `dfdc_train_part_{parts - 1}`: in each a real and its two fakes, of one second. Answers root.

    Part K holds real_K.mp4, fake_K_0.mp4 and fake_K_1.mp4 beside its metadata.json; every other part is mirrored. 320 x 360 px.
    """
    portrait = astronaut()
    once = manipulated(portrait)
    pictures = (portrait, once, manipulated(once))
    for part in range(parts):
        folder = root / f"dfdc_train_part_{part}"
        folder.mkdir(parents=True)
        names = [f"real_{part}.mp4", f"fake_{part}_0.mp4", f"fake_{part}_1.mp4"]
        for name, picture in zip(names, pictures, strict=True):
            turned = np.ascontiguousarray(picture[:, ::-1]) if part % 2 else picture
            face = (511 - FACE[0], FACE[1]) if part % 2 else FACE
            clip = (moving(turned, part * 17 + n, face, WIDTH) for n in range(frames))
            write_clip(folder / name, clip)
        described: dict[str, dict[str, str]] = {
            name: {"label": "FAKE", "split": "train", "original": names[0]} for name in names[1:]
        }
        described[names[0]] = {"label": "REAL", "split": "train"}
        (folder / "metadata.json").write_text(json.dumps(described))
    return root
