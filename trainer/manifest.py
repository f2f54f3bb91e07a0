"""A prepared data set: one Parquet row per face crop, pixels and masks in plain arrays beside it. Knows no label's origin, no network.

    DIR/manifest.parquet          one row per crop, columns as in SCHEMA; written last, its presence says that the set is whole
    DIR/crops/NAME.npy            (n, S, S, 3) uint8 RGB, the crops of one source video or picture
    DIR/masks/NAME.npy            (n, S, S / 8) uint8, packed bits, 1 = manipulated; only for fakes whose original is known

Letters: N crops in the set, S crop side.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from farm.contracts import CROP_SIDE_PX
from farm.errors import BadInput

MANIFEST = "manifest.parquet"
CROP_MARGIN = 0.15
"""The face box is widened by this share of its longer side on each side: in training, on the card, and so in the farm."""

SCHEMA = pa.schema(
    [
        # path of the source file below the data set's root; one value per video or picture
        pa.field("video", pa.string(), nullable=False),
        # REAL or FAKE
        pa.field("label", pa.string(), nullable=False),
        # `video` of the file this one was made from; its own `video` for a real; empty where nobody knows
        pa.field("original", pa.string(), nullable=False),
        # what is known to belong together beyond the original: a person, an actor, a folder; empty where nothing is
        pa.field("group", pa.string(), nullable=False),
        # how the fake was made, as the data set names it; "real" for reals
        pa.field("method", pa.string(), nullable=False),
        pa.field("frame_index", pa.int64(), nullable=False),
        pa.field("pts_seconds", pa.float64(), nullable=False),
        # path of the crops' array below DIR, and the row in it (the masks' array has the same name and rows)
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        # the square that was cut, in source pixels: x0 y0 x1 y1
        pa.field("crop_box", pa.list_(pa.float32(), 4), nullable=False),
        # the face box in crop pixels: x0 y0 x1 y1
        pa.field("face_box", pa.list_(pa.float32(), 4), nullable=False),
        # the detector's five points in crop pixels, x and y in turn; null where it gave none
        pa.field("points", pa.list_(pa.float32(), 10)),
        # share of the crop that is manipulated; null where it is not known (a fake without its original); 0 for a real
        pa.field("mask_area", pa.float32()),
        # no colour of its own: grey, sepia, toned
        pa.field("mono", pa.bool_(), nullable=False),
    ]
)


@dataclass(frozen=True)
class CropSet:
    """An open prepared set. Arrays of pixels are mapped when first asked for; copies of this object travel to loader processes cheaply."""

    folder: Path
    table: pa.Table = field(repr=False)

    @classmethod
    def open(cls, path: Path) -> CropSet:
        """Open DIR or DIR/manifest.parquet. Raises BadInput where it is missing, unfinished or of another schema."""
        file = path / MANIFEST if path.is_dir() else path
        try:
            table = pq.read_table(file, partitioning=None)
        except (OSError, pa.ArrowException) as error:
            raise BadInput(
                f"{file} is no manifest of a prepared data set ({type(error).__name__}); run `trainer prepare` first"
            ) from error
        if not table.schema.equals(SCHEMA):
            raise BadInput(f"{file} was written by another version of `trainer prepare`; prepare the data set again")
        return cls(file.parent, table)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> NDArray[Any]:
        """One column of plain values as an (N,) array."""
        return np.asarray(self.table.column(name).to_numpy(zero_copy_only=False))

    @cached_property
    def videos(self) -> NDArray[Any]:
        """(N,) str."""
        return self.column("video")

    @cached_property
    def fake(self) -> NDArray[np.bool_]:
        """(N,) bool, True for FAKE."""
        return np.asarray(self.column("label") == "FAKE")

    @cached_property
    def face_boxes(self) -> NDArray[np.float32]:
        """(N, 4) float32, x0 y0 x1 y1 in crop pixels."""
        return _fixed(self.table.column("face_box"), 4)

    @cached_property
    def points(self) -> NDArray[np.float32]:
        """(N, 5, 2) float32 in crop pixels; nan where the detector gave none."""
        filled = self.table.column("points").to_pylist()
        empty = [float("nan")] * 10
        return np.array([p if p is not None else empty for p in filled], np.float32).reshape(-1, 5, 2)

    @cached_property
    def original_rows(self) -> NDArray[np.intp]:
        """(N,) row of the same frame of a fake's original, cut with the same box; -1 for reals and where it is not in the set."""
        frames, originals, fake = self.column("frame_index"), self.column("original"), self.fake
        at = {(v, int(f)): i for i, (v, f) in enumerate(zip(self.videos, frames, strict=True)) if not fake[i]}
        rows = [
            at.get((o, int(f)), -1) if is_fake else -1 for o, f, is_fake in zip(originals, frames, fake, strict=True)
        ]
        return np.array(rows, np.intp)

    def crop(self, row: int) -> NDArray[np.uint8]:
        """(S, S, 3) uint8 RGB, a copy."""
        return np.array(self._one(self._shards[row], row, (CROP_SIDE_PX, CROP_SIDE_PX, 3)))

    def mask(self, row: int) -> NDArray[np.bool_] | None:
        """(S, S) bool, True = manipulated; all False for a real, None for a fake whose mask nobody knows."""
        if not self.fake[row]:
            return np.zeros((CROP_SIDE_PX, CROP_SIDE_PX), np.bool_)
        if np.isnan(self._mask_areas[row]):
            return None
        name = self._shards[row].replace("crops/", "masks/", 1)
        return np.unpackbits(self._one(name, row, (CROP_SIDE_PX, CROP_SIDE_PX // 8)), axis=-1).astype(np.bool_)

    @cached_property
    def _shards(self) -> list[str]:
        return list(self.table.column("shard").to_pylist())

    @cached_property
    def _rows(self) -> NDArray[np.int32]:
        return self.column("row")

    @cached_property
    def _mask_areas(self) -> NDArray[np.float32]:
        return self.column("mask_area").astype(np.float32)

    def _one(self, shard: str, row: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        array, at = self._array(shard), self._rows[row]
        if array.dtype != np.uint8 or array.shape[1:] != shape or at >= len(array):
            raise BadInput(
                f"{self.folder / shard} holds {array.dtype} {array.shape}, expected uint8 (n, {str(shape)[1:]} and a row {at}; "
                "prepare the data set again"
            )
        return np.asarray(array[at])

    def _array(self, name: str) -> NDArray[np.uint8]:
        path = self.folder / name
        try:
            return np.asarray(np.load(path, mmap_mode="r"))
        except (OSError, ValueError) as error:
            raise BadInput(f"{path} is missing or damaged ({error}); prepare the data set again") from error

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "table": self.table}  # what was computed is computed again where it is needed


def write_manifest(folder: Path, rows: list[dict[str, Any]] | pa.Table) -> Path:
    """Write DIR/manifest.parquet from one dict of SCHEMA's columns per crop, or a table of them, whole or not at all; returns its path."""
    path, part = folder / MANIFEST, folder / f"{MANIFEST}.part"
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA) if isinstance(rows, list) else rows, part)
    part.replace(path)
    return path


def write_shard(folder: Path, name: str, crops: NDArray[np.uint8], masks: NDArray[np.bool_] | None) -> str:
    """Store (n, S, S, 3) crops and, for fakes, (n, S, S) masks under a file name; returns the shard's path below DIR."""
    for kind, array in (("crops", crops), ("masks", None if masks is None else np.packbits(masks, axis=-1))):
        if array is None:
            continue
        path = folder / kind / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.save(file, array)
        part.replace(path)
    return f"crops/{name}.npy"


def _fixed(column: pa.ChunkedArray, width: int) -> NDArray[np.float32]:
    return np.array(column.to_pylist(), np.float32).reshape(-1, width)
