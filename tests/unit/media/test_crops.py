"""Crops of real pixels, and masks back on their frame."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.contracts import Box
from farm.media.crops import cut, inside, paste_mask, quality, square_box
from farm.samples import astronaut

AXIS = st.floats(-500, 900)
BOXES = st.builds(lambda x, y, w, h: Box(x, y, x + w, y + h), AXIS, AXIS, st.floats(0.5, 700), st.floats(0.5, 700))


def ramp(height: int, width: int) -> np.ndarray:
    """A frame whose red is x and whose green is y."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[..., 0] = np.arange(width)
    frame[..., 1] = np.arange(height)[:, None]
    return frame


def test_the_square_is_centred_and_widened_by_the_longer_side() -> None:
    assert square_box(Box(100, 100, 140, 180), 0.25) == Box(60, 80, 180, 200)


@given(BOXES, st.integers(2, 400), st.integers(2, 400))
def test_what_is_cut_is_a_square_of_whole_pixels_inside_the_frame_and_stays_so(
    box: Box, height: int, width: int
) -> None:
    real = inside(box, height, width)
    assert real.width == real.height >= 2
    assert real.x0 >= 0 and real.x1 <= width and real.y0 >= 0 and real.y1 <= height
    assert all(float(v).is_integer() for v in (real.x0, real.y0, real.x1, real.y1))
    assert inside(real, height, width) == real


def test_a_square_inside_the_frame_is_cut_where_it_is() -> None:
    crop = cut(ramp(200, 250), Box(30, 40, 50, 60), side_px=20)
    assert crop[0, 0].tolist() == [30, 40, 0]
    assert crop[-1, -1].tolist() == [49, 59, 0]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (Box(-10, -20, 40, 30), Box(0, 0, 50, 50)),
        (Box(220, 180, 280, 240), Box(190, 140, 250, 200)),
        (Box(-100, -100, 400, 400), Box(50, 0, 250, 200)),
    ],
)
def test_a_square_over_the_edge_is_shifted_inside_and_shrinks_to_the_frame(box: Box, expected: Box) -> None:
    real = inside(box, 200, 250)
    assert (real.width, real.height) == (expected.width, expected.height)
    assert real.x0 >= 0 and real.x1 <= 250 and real.y0 >= 0 and real.y1 <= 200
    crop = cut(ramp(200, 250), box, side_px=int(real.width))
    assert np.array_equal(crop, ramp(200, 250)[int(real.y0) : int(real.y1), int(real.x0) : int(real.x1)])


def test_shrinking_averages_so_that_fine_stripes_do_not_turn_into_coarse_ones() -> None:
    stripes = np.zeros((1000, 1000, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = cut(stripes, Box(0, 0, 1000, 1000))
    assert crop.std() < 15
    assert abs(crop.mean() - 127.5) < 2


def test_a_crop_has_its_own_memory() -> None:
    frame = ramp(224, 224)
    crop = cut(frame, Box(0, 0, 224, 224))
    frame[:] = 0
    assert crop.any()


def test_a_mask_comes_back_where_its_crop_was_cut() -> None:
    frame = np.zeros((300, 400), np.uint8)
    cv2.circle(frame, (150, 120), 30, 255, -1)
    box = square_box(Box(110, 80, 190, 160), 0.2)
    mask = cut(np.repeat(frame[..., None], 3, axis=2), box)[..., 0] > 127
    pasted = paste_mask(mask, box, 300, 400)
    assert pasted.shape == (300, 400) and pasted.dtype == np.bool_
    both, either = (pasted & (frame > 0)).sum(), (pasted | (frame > 0)).sum()
    assert both / either > 0.95


@pytest.mark.parametrize(
    "box", [Box(-50, -50, 70, 70), Box(350, 250, 500, 400), Box(-900, -900, 900, 900), Box(10, 10, 12, 12)]
)
def test_a_full_mask_covers_exactly_what_was_cut(box: Box) -> None:
    pasted = paste_mask(np.ones((224, 224), np.bool_), box, 300, 400)
    real = inside(box, 300, 400)
    expected = np.zeros((300, 400), np.bool_)
    expected[int(real.y0) : int(real.y1), int(real.x0) : int(real.x1)] = True
    assert np.array_equal(pasted, expected)


def test_a_mask_of_probabilities_keeps_its_values() -> None:
    pasted = paste_mask(np.full((224, 224), 0.25, np.float32), Box(10, 10, 60, 60), 100, 100)
    assert pasted.dtype == np.float32
    assert pasted[30, 30] == pytest.approx(0.25)
    assert pasted[5, 5] == 0


def test_quality_falls_with_blur_and_with_darkness() -> None:
    crop = cut(astronaut(), Box(160, 50, 290, 180))
    sharpness, brightness = quality(crop)
    blurred = quality(cv2.GaussianBlur(crop, (0, 0), 4))
    dark = quality(crop // 8)
    assert sharpness > 50 > 5 > blurred[0]
    assert 100 < brightness < 180
    assert blurred[1] == pytest.approx(brightness, abs=2)
    assert dark[1] < 20
