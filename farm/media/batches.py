"""The bytes of a crop batch: what a splitter hands to a card. Knows the format, not where the bytes are stored.

    magic (8 bytes) | header length (4, little-endian) | header (JSON, UTF-8) | pixels (B x S x S x 3 bytes, uint8 RGB)

The pixels are raw, because a card waits for them: decoding is a view on the bytes. Lossy codecs would erase the traces we
look for, lossless ones cost a CPU more than the network's card does. CRC-32 guards header and pixels; computed by ISA-L, as
zlib's own takes three times as long, which was a tenth of what a batch costs a card's worker.
Letters in shapes: B crops in a batch, S side of a crop.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from isal.isal_zlib import crc32

from farm.contracts import CROP_SIDE_PX, Box, Crop, CropBatch, FrameRef
from farm.errors import BadObject

MAGIC = b"FARMCRB1"
"""Format and its version; a reader of another version must refuse."""
_FRAME = struct.Struct("<8sII")


def encode_batch(batch: CropBatch) -> bytes:
    """The batch as bytes, the same ones for the same batch."""
    header = json.dumps({"index": batch.index, "crops": [_crop_values(c) for c in batch.crops]}, separators=(",", ":"))
    head = header.encode()
    pixels = np.ascontiguousarray(batch.pixels).data.cast("B")
    return b"".join((_FRAME.pack(MAGIC, len(head), crc32(pixels, crc32(head))), head, pixels))


def decode_batch(data: bytes) -> CropBatch:
    """The batch back; its pixels are a read-only view on `data`. Raises BadObject for foreign, cut or damaged bytes."""
    if len(data) < _FRAME.size or data[: len(MAGIC)] != MAGIC:
        raise BadObject(
            f"these {len(data)} bytes are no crop batch of this version (no {MAGIC.decode()} at their start)"
        )
    _, size, checksum = _FRAME.unpack_from(data)
    start = _FRAME.size + size
    body = memoryview(data)[_FRAME.size :]
    if len(body) < size or crc32(body) != checksum:
        raise BadObject(f"a crop batch of {len(data)} bytes is cut off or damaged: its checksum does not hold")
    try:
        header = json.loads(data[_FRAME.size : start])
        crops = tuple(_crop(values) for values in header["crops"])
        pixels = np.frombuffer(data, np.uint8, offset=start).reshape(len(crops), CROP_SIDE_PX, CROP_SIDE_PX, 3)
        return CropBatch(int(header["index"]), pixels, crops)
    except (ValueError, KeyError, TypeError) as error:
        raise BadObject(f"a crop batch does not parse: {error}") from error


def _crop_values(crop: Crop) -> list[Any]:
    frame, face, square = crop.frame, crop.face_box, crop.crop_box
    boxes = ([float(v) for v in (box.x0, box.y0, box.x1, box.y1)] for box in (face, square))
    return [frame.index, frame.pts_seconds, *boxes, crop.track, crop.confidence]


def _crop(values: list[Any]) -> Crop:
    index, pts_seconds, face, square, track, confidence = values
    return Crop(FrameRef(int(index), float(pts_seconds)), Box(*face), Box(*square), int(track), float(confidence))
