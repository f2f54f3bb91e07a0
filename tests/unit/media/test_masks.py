"""The bytes of masks, and masks drawn on pictures."""

import cv2
import numpy as np
import pytest

from farm.errors import BadObject
from farm.media.masks import decode_masks, encode_masks, overlay


def blobs(count: int, side: int = 224) -> np.ndarray:
    rng = np.random.default_rng(7)
    masks = np.zeros((count, side, side), np.uint8)
    for mask in masks:
        centre, axes = rng.integers(60, side - 60, 2).tolist(), rng.integers(20, 60, 2).tolist()
        cv2.ellipse(mask, centre, axes, int(rng.integers(180)), 0, 360, 1, -1)
    return masks.astype(bool)


@pytest.mark.parametrize("shape", [(3, 224, 224), (1, 5, 5), (0, 224, 224)])
def test_masks_come_back_bit_for_bit(shape: tuple[int, int, int]) -> None:
    masks = np.random.default_rng(1).random(shape) > 0.5
    back = decode_masks(encode_masks(masks))
    assert back.dtype == np.bool_
    np.testing.assert_array_equal(back, masks)


def test_a_face_shaped_mask_takes_less_than_two_kib() -> None:
    assert len(encode_masks(blobs(64))) / 64 < 2048


@pytest.mark.parametrize("kept", [0, 8, 19, 30, -1])
def test_masks_that_are_cut_off_are_refused(kept: int) -> None:
    with pytest.raises(BadObject):
        decode_masks(encode_masks(blobs(2))[:kept])


@pytest.mark.parametrize("at", [0, 8, 13, 17, 40, -3])
def test_a_changed_byte_is_noticed(at: int) -> None:
    data = bytearray(encode_masks(blobs(2)))
    data[at] ^= 64
    with pytest.raises(BadObject):
        decode_masks(bytes(data))


def test_a_header_that_claims_a_bomb_is_refused_before_memory_is_taken() -> None:
    data = bytearray(encode_masks(blobs(1)))
    data[8:16] = b"\xff" * 8
    with pytest.raises(BadObject, match="claims"):
        decode_masks(bytes(data))


def test_masks_of_another_shape_are_refused() -> None:
    with pytest.raises(BadObject, match="expected bool"):
        encode_masks(np.zeros((224, 224), bool))


def test_an_overlay_reddens_the_mask_alone_and_leaves_the_picture_as_it_was() -> None:
    picture = np.full((224, 224, 3), 100, np.uint8)
    mask = np.zeros((224, 224), bool)
    mask[50:100, 60:120] = True
    drawn = overlay(picture, mask)
    assert (picture == 100).all()
    assert (drawn[~mask] == 100).all()
    assert (drawn[mask][:, 0].astype(int) - drawn[mask][:, 1] > 50).all()
    assert tuple(drawn[50, 60]) == (230, 30, 40)
