"""The bytes of a crop batch."""

import struct

import numpy as np
import pytest

from farm.contracts import CROP_SIDE_PX, Box, Crop, CropBatch, FrameRef
from farm.errors import BadObject
from farm.media.batches import decode_batch, encode_batch


def batch_of(count: int, index: int = 3) -> CropBatch:
    rng = np.random.default_rng(count)
    pixels = rng.integers(0, 256, (count, CROP_SIDE_PX, CROP_SIDE_PX, 3), np.uint8)
    crops = tuple(
        Crop(FrameRef(7 * i, i / 3), Box(-1.5, 2, 99.25, 140), Box(0, 0, 177, 177), track=i % 2, confidence=0.1 + i / 7)
        for i in range(count)
    )
    return CropBatch(index, pixels, crops)


@pytest.mark.parametrize("count", [1, 5])
def test_a_batch_comes_back_bit_for_bit(count: int) -> None:
    batch = batch_of(count)
    back = decode_batch(encode_batch(batch))
    assert back.index == 3
    assert back.crops == batch.crops
    np.testing.assert_array_equal(back.pixels, batch.pixels)


def test_the_same_batch_gives_the_same_bytes() -> None:
    assert encode_batch(batch_of(2)) == encode_batch(batch_of(2))


def test_decoding_copies_no_pixel() -> None:
    data = encode_batch(batch_of(2))
    pixels = decode_batch(data).pixels
    assert np.shares_memory(pixels, np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("kept", [0, 5, 15, 40, -1])
def test_a_batch_that_is_cut_off_is_refused(kept: int) -> None:
    with pytest.raises(BadObject):
        decode_batch(encode_batch(batch_of(1))[:kept])


@pytest.mark.parametrize("at", [9, 13, 20, 400, -1])
def test_a_changed_byte_is_noticed(at: int) -> None:
    data = bytearray(encode_batch(batch_of(1)))
    data[at] ^= 1
    with pytest.raises(BadObject):
        decode_batch(bytes(data))


def test_foreign_bytes_are_refused_with_their_size() -> None:
    with pytest.raises(BadObject, match="these 4000 bytes are no crop batch"):
        decode_batch(b"\x93NUMPY" + bytes(3994))


def test_a_header_that_counts_other_crops_than_there_are_pixels_is_refused() -> None:
    from zlib import crc32

    head = b'{"index":0,"crops":[]}'
    body = head + bytes(CROP_SIDE_PX * CROP_SIDE_PX * 3)
    with pytest.raises(BadObject, match="does not parse"):
        decode_batch(struct.pack("<8sII", b"FARMCRB1", len(head), crc32(body)) + body)
