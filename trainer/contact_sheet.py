"""A prepared set to look at: some crops in one picture, each fake beside its original and its mask. Knows a CropSet only."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from farm.contracts import CROP_SIDE_PX
from farm.errors import StorageAway
from trainer.manifest import CropSet

CONTACT = "contact.png"
SHOWN = 24
COLUMNS = 4
TILE_PX = 112
GAP_PX = 6
CAPTION_PX = 14
CHARACTERS = 17
"""Of the caption that fit below one tile."""
UNKNOWN_GREY = 128
"""A mask that nobody knows is grey all over; black is untouched, white manipulated."""


def draw(crops: CropSet, seed: int = 0, shown: int = SHOWN) -> Path:
    """Write DIR/contact.png and answer its path: up to `shown` times real | fake | mask over the video's name; drawn evenly over the fakes.

    Where the set has no pair, its crops alone. One seed gives one picture. Raises StorageAway where DIR
    cannot be written.
    """
    fakes, originals = np.flatnonzero(crops.fake), crops.original_rows
    rows = [int(row) for row in _drawn(fakes if len(fakes) else np.arange(len(crops)), seed, shown)]
    cells = [_cell(crops, row, int(originals[row]), bool(len(fakes))) for row in rows]
    blank = np.full_like(cells[0], 255)
    cells += [blank] * (-len(cells) % COLUMNS)
    lines = [np.hstack(cells[i : i + COLUMNS]) for i in range(0, len(cells), COLUMNS)]
    path = crops.folder / CONTACT
    ok, png = cv2.imencode(".png", np.ascontiguousarray(np.vstack(lines)[:, :, ::-1]))
    assert ok, "a uint8 picture can always be written as PNG"
    try:
        path.write_bytes(png.tobytes())
    except OSError as error:
        raise StorageAway(
            f"{path} cannot be written ({error.strerror or error}); make room or name another folder, and give the same command again"
        ) from error
    return path


def _drawn(rows: NDArray[np.intp], seed: int, count: int) -> NDArray[np.intp]:
    """One row out of each of `count` stretches of equal length: rows lie video by video, so many videos are seen."""
    rng = np.random.default_rng(seed)
    stretches = np.array_split(rows, min(count, len(rows)))
    return np.array([rng.choice(stretch) for stretch in stretches], np.intp)


def _cell(crops: CropSet, row: int, original: int, has_fakes: bool) -> NDArray[np.uint8]:
    tiles = [crops.crop(row)]
    if has_fakes:
        mask = crops.mask(row)
        grey = np.full((CROP_SIDE_PX, CROP_SIDE_PX), UNKNOWN_GREY, np.uint8) if mask is None else np.uint8(255) * mask
        real = crops.crop(original) if original >= 0 else np.full_like(tiles[0], UNKNOWN_GREY)
        tiles = [real, *tiles, np.repeat(grey[:, :, None], 3, axis=2)]
    small = [cv2.resize(tile, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA) for tile in tiles]
    cell = np.full((TILE_PX + CAPTION_PX + GAP_PX, len(small) * TILE_PX + GAP_PX, 3), 255, np.uint8)
    cell[:TILE_PX, : len(small) * TILE_PX] = np.hstack(small)
    kinds, name = "real | fake | mask  " if has_fakes else "", str(crops.videos[row])
    room = len(small) * CHARACTERS - len(kinds)
    _write(cell, kinds + (name if len(name) <= room else "~" + name[1 - room :]))
    return cell


def _write(cell: NDArray[np.uint8], words: str) -> None:
    """Under the tiles, in the letters that OpenCV has: what is not ASCII becomes a question mark."""
    plain = words.encode("ascii", "replace").decode()
    at = (2, cell.shape[0] - GAP_PX - 3)
    cv2.putText(cell, plain, at, cv2.FONT_HERSHEY_PLAIN, 0.7, (0, 0, 0), 1, cv2.LINE_AA)
