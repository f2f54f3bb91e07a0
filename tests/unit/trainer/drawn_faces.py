"""Faces drawn for the tests: the trainer's tests need neither portraits nor a detector."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

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


def patches(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """(B, S, S, 3) crops that are no faces, but differ much: patches of 16 px under noise, each crop dim or bright, in a colour."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 14, 14, 3)).repeat(16, axis=1).repeat(16, axis=2)
    coarse = coarse * rng.uniform(0.0, 1.3, (count, 1, 1, 3))
    return np.clip(coarse + rng.normal(0, 10, coarse.shape), 0, 255).astype(np.uint8)
