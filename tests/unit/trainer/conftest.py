"""A few drawn faces in a crop cache: the trainer's tests need neither portraits nor a detector."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from unit.trainer.drawn_faces import FIVE_POINTS, draw_face

from trainer import prepare


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
    index = {
        "margin": prepare.CROP_MARGIN,
        "names": [f"{i}.jpg" for i in range(24)],
        "persons": [f"p{i // 2}" for i in range(24)],
    }
    (folder / "faces.json").write_text(json.dumps(index))
    return folder
