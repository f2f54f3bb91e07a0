from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from farm.samples import FACE, INNER_FACE_PX, astronaut
from farm.samples import manipulated as with_another_face
from trainer.masks import SMALLEST_AREA, dissimilarity, manipulated

LEFT, TOP = 114, 6


def portrait(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(picture[TOP : TOP + 224, LEFT : LEFT + 224])


def test_one_minus_s_stays_within_zero_and_one_where_s_is_negative() -> None:
    real = portrait(astronaut())
    found = dissimilarity(real, np.asarray(255 - real, np.uint8))
    assert found.dtype == np.float32 and found.shape == (224, 224)
    assert found.min() >= 0 and found.max() == 1.0


def test_a_crop_and_itself_differ_nowhere() -> None:
    real = portrait(astronaut())
    assert dissimilarity(real, real).max() == pytest.approx(0, abs=1e-6)
    assert not manipulated(real, real).any()


def test_another_encoding_is_no_manipulation() -> None:
    real = portrait(astronaut())
    _, jpeg = cv2.imencode(".jpg", real, [cv2.IMWRITE_JPEG_QUALITY, 80])
    assert not manipulated(real, np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), np.uint8)).any()


def test_a_replaced_face_is_found_where_it_is() -> None:
    real = astronaut()
    mask = manipulated(portrait(real), portrait(with_another_face(real)))
    truth = np.zeros((224, 224), np.uint8)
    cv2.ellipse(truth, (FACE[0] - LEFT, FACE[1] - TOP), INNER_FACE_PX, 0, 0, 360, 1, -1)
    inside = truth.astype(bool)
    assert (mask & inside).sum() / (mask | inside).sum() > 0.6


def test_a_part_without_structure_inside_a_change_is_filled() -> None:
    rng = np.random.default_rng(0)
    real = np.full((224, 224, 3), 120, np.uint8)
    fake = real.copy()
    ring = cv2.circle(np.zeros((224, 224), np.uint8), (112, 112), 50, 1, 24).astype(bool)
    fake[ring] = rng.integers(0, 255, (int(ring.sum()), 3))
    mask = manipulated(real, fake)
    assert mask[112, 112] and not mask[10, 10]


def test_a_change_smaller_than_the_smallest_area_is_dropped() -> None:
    real = portrait(astronaut())
    fake = real.copy()
    fake[100:104, 100:104] = 255 - fake[100:104, 100:104]
    assert (dissimilarity(real, fake) > 0.5).sum() < SMALLEST_AREA * 224 * 224
    assert not manipulated(real, fake).any()
