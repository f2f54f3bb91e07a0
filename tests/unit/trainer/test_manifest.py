"""A prepared set whose arrays are not what its manifest says is refused by the array's name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from unit.trainer.conftest import crop_row

from farm.errors import BadInput
from trainer.manifest import CropSet, write_manifest, write_shard


def crop_set(folder: Path, crops: NDArray[np.uint8], row: int = 0) -> CropSet:
    write_shard(folder, "a", crops, None)
    write_manifest(folder, [crop_row("a", row=row)])
    return CropSet.open(folder)


@pytest.mark.parametrize(
    ("crops", "row"),
    [
        (np.zeros((1, 160, 160, 3), np.uint8), 0),
        (np.zeros((1, 224, 224), np.uint8), 0),
        (np.zeros((1, 224, 224, 3), np.float32), 0),
        (np.zeros((1, 224, 224, 3), np.uint8), 1),
    ],
    ids=["another side", "no colours", "no bytes", "a row too few"],
)
def test_crops_that_disagree_with_their_manifest_are_refused(
    tmp_path: Path, crops: NDArray[np.uint8], row: int
) -> None:
    with pytest.raises(BadInput, match=r"crops/a\.npy holds .* prepare the data set again"):
        crop_set(tmp_path, crops, row).crop(0)


def test_masks_of_another_side_than_their_crops_are_refused(tmp_path: Path) -> None:
    write_shard(tmp_path, "f", np.zeros((1, 224, 224, 3), np.uint8), np.zeros((1, 112, 112), np.bool_))
    write_manifest(tmp_path, [crop_row("f", label="FAKE", method="swap", mask_area=0.1)])
    with pytest.raises(BadInput, match=r"masks/f\.npy holds uint8 \(1, 112, 14\)"):
        CropSet.open(tmp_path).mask(0)


def test_a_missing_and_a_cut_off_array_are_refused(tmp_path: Path) -> None:
    crops = crop_set(tmp_path, np.zeros((1, 224, 224, 3), np.uint8))
    file = tmp_path / "crops" / "a.npy"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(BadInput, match=r"crops/a\.npy is missing or damaged"):
        crops.crop(0)
    file.unlink()
    with pytest.raises(BadInput, match=r"crops/a\.npy is missing or damaged"):
        crops.crop(0)
