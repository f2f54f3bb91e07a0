"""A few drawn faces in a crop cache: the trainer's tests need neither portraits nor a detector."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from trainer import prepare

FIVE_POINTS = np.array([[82, 92], [142, 92], [112, 122], [90, 152], [134, 152]], np.float32)


def draw_face(seed: int, side: int = 224) -> NDArray[np.uint8]:
    """A grainy oval with eyes and a mouth on a toned background, different for every seed."""
    rng = np.random.default_rng(seed)
    image = np.full((side, side, 3), rng.integers(40, 200, 3), np.uint8)
    skin = tuple(int(c) for c in rng.integers(120, 230, 3))
    cv2.ellipse(image, (112, 118), (62, 84), 0, 0, 360, skin, -1)
    for x, y in FIVE_POINTS[:2].astype(int):
        cv2.circle(image, (int(x), int(y)), 8, (20, 30, 40), -1)
    cv2.ellipse(image, (112, 152), (24, 8), 0, 0, 360, (150, 40, 50), -1)
    grain = cv2.GaussianBlur(rng.normal(0, 40, image.shape), (0, 0), 1.0)
    return np.asarray((image + grain).clip(0, 255), np.uint8)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of 24 faces of 12 persons, the last two monochrome."""
    folder = tmp_path_factory.mktemp("cache")
    crops = np.stack([draw_face(i) for i in range(24)])
    rng = np.random.default_rng(0)
    np.save(folder / "crops.npy", crops)
    np.save(folder / "points.npy", (FIVE_POINTS + rng.normal(0, 2, (24, 5, 2))).astype(np.float32))
    np.save(folder / "boxes.npy", np.tile(np.array([50, 34, 174, 202], np.float32), (24, 1)))
    np.save(folder / "mono.npy", np.arange(24) >= 22)
    np.save(folder / "redrawn.npy", np.stack([[cv2.resize(c[24:200, 24:200], (96, 96)) for c in crops]] * 2))
    index = {"margin": prepare.CROP_MARGIN, "names": [f"{i}.jpg" for i in range(24)], "persons": [f"p{i // 2}" for i in range(24)]}
    (folder / "faces.json").write_text(json.dumps(index))
    return folder
