"""Which videos show one person, by a face-recognition network that the user names: none is shipped. Knows no label and no split.

The network takes (B, 3, P, P) float32 RGB faces, turned and scaled so that the five points lie where ArcFace puts them (Deng et
al., CVPR 2019), values (x - 127.5) / 127.5, and gives (B, E) embeddings whose cosine says how alike two faces are.
V videos, E length of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from farm.errors import BadInput, BadModel
from trainer.manifest import CropSet
from trainer.splits import by_video

SAME_FACE_ABOVE = 0.5
"""Cosine above which two videos show one person. Depends on the network: look at the report before trusting it."""
FACES_PER_VIDEO = 5
ALIGNED_PX = 112
ALIGNED_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)
"""ArcFace's places of eyes, nose and mouth corners in a face of 112 px."""


class FaceEmbedding:
    """A face-recognition network from an ONNX file."""

    def __init__(self, file: Path) -> None:
        """Raises BadModel if the file is missing or OpenCV cannot run it."""
        try:
            self._net = cv2.dnn.readNetFromONNX(str(file))
        except cv2.error as error:
            raise BadModel(f"{file} is no ONNX network that OpenCV reads ({error.err})") from error
        self._file = file

    def embed(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, P, P, 3) uint8 aligned RGB -> (B, E) float32 of length 1. Raises BadModel if the network refuses them."""
        self._net.setInput((faces.astype(np.float32).transpose(0, 3, 1, 2) - 127.5) / 127.5)
        try:
            found = np.asarray(self._net.forward(), np.float32)
        except cv2.error as error:
            raise BadModel(f"{self._file} does not take faces of {faces.shape[1]} px, RGB ({error.err})") from error
        if found.ndim != 2 or len(found) != len(faces):
            raise BadModel(f"{self._file} gives {found.shape} for {len(faces)} faces; an embedding (B, E) was expected")
        return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6), np.float32)


def aligned(crop: NDArray[np.uint8], points: NDArray[np.float32]) -> NDArray[np.uint8] | None:
    """A crop's face in ArcFace's pose, (P, P, 3); None if its points fall together."""
    # The stubs promise a matrix; points that fall together give none.
    matrix = cast(NDArray[np.float64] | None, cv2.estimateAffinePartial2D(points, ALIGNED_POINTS, method=cv2.LMEDS)[0])
    if matrix is None or not np.isfinite(matrix).all():
        return None
    return np.asarray(cv2.warpAffine(crop, matrix, (ALIGNED_PX, ALIGNED_PX), flags=cv2.INTER_LINEAR), np.uint8)


def video_embeddings(sets: Sequence[CropSet], network: FaceEmbedding) -> tuple[list[str], NDArray[np.float32]]:
    """V video names and their (V, E) embeddings: the mean over up to five evenly spread faces with points; others are left out.

    Raises BadInput if no crop has points.
    """
    names: list[str] = []
    means = []
    for crops in sets:
        usable = np.flatnonzero(np.isfinite(crops.points).all(axis=(1, 2)))
        for video, rows in by_video(crops, usable):
            some = rows[np.unique(np.linspace(0, len(rows) - 1, FACES_PER_VIDEO).round().astype(int))]
            faces = [face for r in some if (face := aligned(crops.crop(int(r)), crops.points[r])) is not None]
            if faces:
                mean = network.embed(np.stack(faces)).mean(axis=0)
                names.append(video)
                means.append(mean / max(float(np.linalg.norm(mean)), 1e-6))
    if not names:
        raise BadInput("no crop of these sets has the detector's five points, so no face can be embedded")
    return names, np.stack(means)


def same_faces(
    names: Sequence[str], embeddings: NDArray[np.float32], above: float = SAME_FACE_ABOVE
) -> list[tuple[str, str]]:
    """Pairs of names whose embeddings' cosine exceeds a limit; memory grows with V, not with its square."""
    pairs: list[tuple[str, str]] = []
    for i in range(len(names) - 1):
        alike = np.flatnonzero(embeddings[i + 1 :] @ embeddings[i] > above) + i + 1
        pairs += [(names[i], names[int(j)]) for j in alike]
    return pairs
