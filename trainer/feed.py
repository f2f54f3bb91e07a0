"""The data that a configuration names: opened, split, checked for leaks, and described for whoever asks later. Knows no network."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from farm.errors import BadInput
from trainer.config import Data, TrainConfig
from trainer.manifest import MANIFEST, CropSet
from trainer.material import Material, Source
from trainer.splits import SPLIT, Side, Split, advice, count, leaks, make_split

SHOWN_LEAKS = 5


@dataclass(frozen=True, slots=True)
class Feed:
    """What a training sees, and what it is watched with."""

    train: Material
    validation: Material
    #: usable crops of the training side
    crops: int
    #: for the checkpoint: manifests with sha256, the split's report, leaks, code version
    facts: dict[str, Any]


def open_feed(config: TrainConfig) -> Feed:
    """Open every set of a configuration.

    Raises BadInput where a set is missing or cannot give its kinds of fakes, a side is empty, or the split leaks and `allow_leaks` is
    not set for every set it parts.
    """
    sets = [CropSet.open(Path(data.manifest)) for data in config.data]
    split = _split(config, sets)
    found = [str(leak) for leak in leaks(split, sets)]
    if found and not all(data.allow_leaks for data in config.data):
        shown = "; ".join(found[:SHOWN_LEAKS])
        raise BadInput(
            f"the split leaks: {len(found)} groups, originals, components or videos stand on more than one side ({shown}). "
            "What is measured on them flatters; split again with `trainer split DIR`, or set allow_leaks = true"
        )
    sides: dict[Side, Material] = {}
    for side in ("train", "validation"):
        sources = [_source(data, crops, split, side) for data, crops in zip(config.data, sets, strict=True)]
        sides[side] = Material.of(sources)
    facts = {
        "data": [_described(data, crops) for data, crops in zip(config.data, sets, strict=True)],
        "split": {side: asdict(counted) for side, counted in count(split, sets).items()},
        "split_by": split.policy.by,
        "leaks": len(found),
        "code_version": version("deepfake-farm"),
    }
    usable = sum(len(source.rows) for source in sides["train"].sources)
    return Feed(sides["train"], sides["validation"], usable, facts)


def held_out(config: TrainConfig) -> list[tuple[CropSet, NDArray[np.intp]]]:
    """Every set of a configuration and its rows on the validation side. Raises BadInput as `open_feed` does."""
    sets = [CropSet.open(Path(data.manifest)) for data in config.data]
    split = _split(config, sets)
    return [(crops, split.rows(crops, "validation")) for crops in sets]


def _split(config: TrainConfig, sets: list[CropSet]) -> Split:
    """The one split of all sets: splits drawn apart would put one person on two sides."""
    named = [
        data.split or (str(crops.folder) if (crops.folder / SPLIT).exists() else "")
        for data, crops in zip(config.data, sets, strict=True)
    ]
    if not any(named):
        return make_split(sets)
    first = Split.open(Path(next(filter(None, named))))
    if any(not name or Split.open(Path(name)) != first for name in named):
        raise BadInput(
            f"the sets have different splits; split them together: trainer split {' '.join(str(crops.folder) for crops in sets)}"
        )
    return first


def _source(data: Data, crops: CropSet, split: Split, side: Side) -> Source:
    rows = split.rows(crops, side)
    if not len(rows):
        raise BadInput(f"{crops.folder} has nothing on the side {side!r}: {advice(split)}")
    return Source(crops, rows, data.fakes, data.weight)


def _described(data: Data, crops: CropSet) -> dict[str, Any]:
    digest = hashlib.sha256((crops.folder / MANIFEST).read_bytes()).hexdigest()
    return {
        "set": crops.folder.name,
        "sha256": digest,
        "crops": len(crops),
        "fakes": dict(data.fakes),
        "weight": data.weight,
    }
