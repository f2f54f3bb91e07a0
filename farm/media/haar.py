"""OpenCV's own Haar cascade as a second face detector: frontal faces only, nothing to install. Knows one frame."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from farm.contracts import Box, Face
from farm.errors import EngineMissing
from farm.media.faces import distinct, shrink

SMALLEST_PX = 20
"""The cascade was trained on 20 x 20 px faces (Viola and Jones 2001; Lienhart 2002) and knows no smaller ones."""


class Haar:
    """A cascade of boosted Haar features over a picture pyramid. The last stage's margin serves as a confidence."""

    name = "haar"

    def __init__(self, side_px: int, confidence: float) -> None:
        """Open the cascade. Raises EngineMissing if this OpenCV does not carry it (5 and later do not)."""
        path = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"
        if not path.is_file():
            raise EngineMissing(f"OpenCV {cv2.__version__} has no Haar cascades: install opencv-python-headless < 5")
        self._cascade = cv2.CascadeClassifier(str(path))
        self._side_px = side_px
        self._confidence = confidence

    def detect(self, rgb: NDArray[np.uint8]) -> list[Face]:
        """All frontal faces of an (H, W, 3) uint8 RGB frame, the most confident first."""
        small, factor = shrink(rgb, self._side_px)
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        boxes, _, margins = self._cascade.detectMultiScale3(
            grey, scaleFactor=1.1, minNeighbors=4, minSize=(SMALLEST_PX, SMALLEST_PX), outputRejectLevels=True
        )
        faces = []
        for (x, y, w, h), margin in zip(boxes, np.ravel(margins), strict=True):
            confidence = float(1 / (1 + np.exp(-margin / 2)))
            if confidence > self._confidence:
                box = Box(float(x * factor), float(y * factor), float((x + w) * factor), float((y + h) * factor))
                faces.append(Face(box, confidence))
        return distinct(faces)
