"""The card's numbers, against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from workers.engines.fix_point import Quantizer, input_table, quantized_cut, real_values

SCALES = [
    (1 / 255, 0.0, 7),
    (1 / 255, 0.0, 6),
    (2 / 255, -1.0, 7),
    (1 / 127.5, -1.0, 6),
    (1.0, 0.0, -1),
    (1.0, -128.0, 0),
    (0.0171, -2.1, 5),
    (0.0171, -5.3, 7),
]


def exact(value: int, scale: float, offset: float, fix_point: int) -> int:
    real = np.float32(value) * np.float32(scale) + np.float32(offset)
    return max(-128, min(127, math.floor(Fraction(float(real)) * Fraction(2) ** fix_point + Fraction(1, 2))))


@pytest.mark.parametrize(("scale", "offset", "fix_point"), SCALES)
def test_the_table_is_the_exact_rounding_for_every_pixel_value(scale: float, offset: float, fix_point: int) -> None:
    table = input_table(scale, offset, fix_point)
    assert table.tolist() == [exact(value, scale, offset, fix_point) for value in range(256)]


def test_white_saturates_instead_of_wrapping_to_black() -> None:
    assert input_table(1 / 255, 0.0, 7)[255] == 127


@pytest.mark.parametrize(("scale", "offset", "fix_point"), SCALES)
def test_pictures_are_quantized_as_the_table_says_on_either_way(scale: float, offset: float, fix_point: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 21, 3), np.uint8)
    quantizer = Quantizer(scale, offset, fix_point)
    for straight in {quantizer.straight, False}:
        quantizer.straight = straight
        out = np.zeros(pixels.shape, np.int8)
        quantizer.quantize(pixels, out)
        np.testing.assert_array_equal(out, quantizer.table[pixels])


def test_the_fast_way_is_taken_for_pictures_on_the_unit_scale_and_refused_where_it_differs() -> None:
    assert Quantizer(1 / 255, 0.0, 7).straight
    assert not Quantizer(0.0171, -5.3, 7).straight


def test_lanes_without_a_picture_are_zero_whatever_was_in_them() -> None:
    pixels, lanes = np.full((2, 8, 8, 3), 200, np.uint8), np.full((6, 8, 8, 3), 99, np.int8)
    quantizer = Quantizer(1 / 255, 0.0, 7)
    quantizer.fill(pixels, lanes)
    assert not lanes[2:].any()
    assert (lanes[:2] == quantizer.table[200]).all()


@pytest.mark.parametrize("fix_point", [-2, 0, 3, 7])
@pytest.mark.parametrize("cut", [-1.7, 0.0, 0.4, 3.0])
def test_cutting_the_integers_is_cutting_the_real_values(cut: float, fix_point: int) -> None:
    integers = np.arange(-128, 128).astype(np.int8)
    np.testing.assert_array_equal(integers > quantized_cut(cut, fix_point), real_values(integers, fix_point) > cut)


def test_a_negative_fix_point_means_values_above_127() -> None:
    assert real_values(np.array([100, -3], np.int8), -2).tolist() == [400, -12]
