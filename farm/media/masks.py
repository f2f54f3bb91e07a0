"""The bytes of a batch's masks, and a mask drawn on a picture. Knows pixels; not what the masks were made by.

    magic (8 bytes) | B (4) | S (4) | CRC-32 of the packed bits (4) | zstd of the packed bits (8 pixels a byte)

Letters in shapes: B masks, S their side, H and W of a picture.
"""

from __future__ import annotations

import struct
from zlib import crc32

import cv2
import numpy as np
import zstandard
from numpy.typing import NDArray

from farm.errors import BadObject

MAGIC = b"FARMMSK1"
"""Format and its version; a reader of another version must refuse."""
_FRAME = struct.Struct("<8sIII")
LEVEL = 9
"""Of zstd: packed masks are small (6 KiB raw each), and stored for long."""
LARGEST_BITS = 1 << 33
"""More pixels than any batch has: a header that claims more is a trap for memory."""
TINT_RGB = (230, 30, 40)
OUTLINE_RGB = (250, 240, 200)
TINT_SHARE, LINE_SHARE = 0.28, 0.65
"""How much of the tint lies over a masked pixel, and over one on a line of the hatching."""


def encode_masks(masks: NDArray[np.bool_]) -> bytes:
    """(B, S, S) bool masks as bytes, the same ones for the same masks. Raises BadObject for another shape."""
    if masks.ndim != 3 or masks.shape[1] != masks.shape[2] or masks.dtype != np.bool_:
        raise BadObject(f"masks are {masks.dtype} {masks.shape}, expected bool (B, S, S)")
    bits = np.packbits(masks).tobytes()
    head = _FRAME.pack(MAGIC, masks.shape[0], masks.shape[1], crc32(bits))
    return head + zstandard.ZstdCompressor(level=LEVEL).compress(bits)


def decode_masks(data: bytes) -> NDArray[np.bool_]:
    """The (B, S, S) bool masks back. Raises BadObject for foreign, cut or damaged bytes."""
    if len(data) < _FRAME.size or data[: len(MAGIC)] != MAGIC:
        raise BadObject(f"these {len(data)} bytes are no masks of this version (no {MAGIC.decode()} at their start)")
    _, count, side, checksum = _FRAME.unpack_from(data)
    pixels = count * side * side
    if pixels > LARGEST_BITS:
        raise BadObject(f"a mask object claims {count} masks of {side} x {side} px: it is damaged")
    try:
        bits = zstandard.ZstdDecompressor().decompress(data[_FRAME.size :], max_output_size=(pixels + 7) // 8)
    except zstandard.ZstdError as error:
        raise BadObject(f"a mask object of {len(data)} bytes is cut off or damaged: {error}") from error
    if len(bits) != (pixels + 7) // 8 or crc32(bits) != checksum:
        raise BadObject(f"a mask object of {len(data)} bytes is damaged: its checksum does not hold")
    return np.unpackbits(np.frombuffer(bits, np.uint8), count=pixels).astype(np.bool_).reshape(count, side, side)


def overlay(rgb: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A copy of an (H, W, 3) uint8 picture with the (H, W) mask tinted red, hatched and outlined: it reads in grey print too."""
    h, w = mask.shape
    spacing = max(6, min(h, w) // 28)
    y, x = np.ogrid[:h, :w]
    share = np.where((x + y) % spacing < max(1, spacing // 5), LINE_SHARE, TINT_SHARE)[mask][:, None]
    drawn = rgb.copy()
    drawn[mask] = (drawn[mask] * (1 - share) + np.array(TINT_RGB, np.float32) * share).round().astype(np.uint8)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, contours, -1, TINT_RGB, max(1, min(h, w) // 224))
    return drawn


def outlined(rgb: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A copy of an (H, W, 3) uint8 picture with the outer bounds of the (H, W) mask as a thin pale line: shown, but not claimed."""
    drawn = rgb.copy()
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    large = [each for each in contours if len(each) >= min(mask.shape) // 8]
    cv2.drawContours(drawn, large, -1, OUTLINE_RGB, 1, cv2.LINE_AA)
    return drawn
