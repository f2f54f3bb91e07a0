"""One side of a prepared set becomes twins on disk: a prepared set of its own, so that any engine can be measured on the same fakes.

What is drawn depends on the seed, the row and the kind alone: the same twins at every call. N crops, S crop side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from farm.errors import BadInput
from trainer import augment
from trainer.manifest import MANIFEST, CropSet, write_manifest, write_shard
from trainer.material import PAIR, UNPAIRED, Source
from trainer.splits import by_video
from trainer.twins import Pair, make_pair

BETWEEN_SAYINGS = 100


@dataclass(slots=True)
class _Twins:
    """The two videos that one source video and one kind become."""

    name: str
    pairs: list[Pair] = field(default_factory=list)
    reals: list[dict[str, Any]] = field(default_factory=list)
    fakes: list[dict[str, Any]] = field(default_factory=list)


def make_fakes(
    crops: CropSet,
    rows: NDArray[np.intp],
    kinds: Sequence[str],
    out: Path,
    per_crop: int = 1,
    recipe_of: augment.Drawing = augment.draw,
    seed: int = 1,
    say: Callable[[int, int], None] = lambda done, whole: None,
) -> CropSet:
    """Write augmented twins of some rows of a set into `out` and open it.

    Blend kinds start from every real in colour with five points (video is colour), `per_crop` times; "pair" from every fake that
    has its original and mask. Donors come from the same rows. A twin's real is a video `VIDEO@KIND-n`, its fake `VIDEO@KIND-n.fake`;
    method is the kind (for "pair" the data set's own), group the source's group, or its original where it has none.
    `say` is told (made, whole) pairs now and then. Raises BadInput if the rows cannot give a kind, or `out` holds a set already.
    """
    if (out / MANIFEST).exists():
        raise BadInput(f"{out} holds a prepared set already; delete it or name another folder")
    if UNPAIRED in kinds or per_crop < 1:
        raise BadInput("twins are made of blends and of the set's own pairs, at least one of each crop")
    source = Source(crops, rows, dict.fromkeys(kinds, 1.0))
    starts = {kind: _starts(source, kind) for kind in source.kinds}
    table, done, whole = [], 0, per_crop * sum(map(len, starts.values()))
    for twins in _twins(source, starts, per_crop, recipe_of, seed):
        _store(out, twins)
        table += twins.reals + twins.fakes
        if (done + len(twins.pairs)) // BETWEEN_SAYINGS > done // BETWEEN_SAYINGS:
            say(done + len(twins.pairs), whole)
        done += len(twins.pairs)
    write_manifest(out, table)
    return CropSet.open(out)


def _starts(source: Source, kind: str) -> NDArray[np.intp]:
    if kind == PAIR:
        return np.sort(np.concatenate([pool.rows for pool in source.fakes[PAIR]]))
    return np.sort(source.colour.rows)


def _twins(
    source: Source,
    starts: dict[str, NDArray[np.intp]],
    per_crop: int,
    recipe_of: augment.Drawing,
    seed: int,
) -> Iterator[_Twins]:
    """The twins of one video, kind and number at a time: no more pixels are held than one video's."""
    for number, (kind, rows) in enumerate(starts.items()):
        for video, frames in by_video(source.crops, rows):
            for n in range(per_crop):
                twins = _Twins(f"{video}@{kind}-{n}")
                for row in frames.tolist():
                    rng = np.random.default_rng((seed, row, number, n))
                    recipe = recipe_of(rng)
                    _add(twins, source, row, make_pair(source, row, kind, rng, recipe), recipe)
                yield twins


def _add(twins: _Twins, source: Source, row: int, pair: Pair, recipe: augment.Recipe) -> None:
    base: dict[str, Any] = source.crops.table.slice(row, 1).to_pylist()[0]
    side = pair.real.shape[0]
    corners = augment.move_points(recipe, source.crops.face_boxes[row].reshape(2, 2), side)
    points = source.crops.points[row]
    base |= {
        "original": twins.name,
        "group": base["group"] or base["original"] or base["video"],
        "row": len(twins.pairs),
        "face_box": [*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()],
        "points": augment.move_five(recipe, points, side).ravel().tolist() if np.isfinite(points).all() else None,
    }
    method = base["method"] if pair.kind == PAIR else pair.kind
    real = {
        "video": twins.name,
        "label": "REAL",
        "method": "real",
        "shard": f"crops/{twins.name}.npy",
        "mask_area": 0.0,
    }
    fake = {"video": f"{twins.name}.fake", "label": "FAKE", "method": method, "mask_area": float(pair.mask.mean())}
    twins.reals.append(base | real)
    twins.fakes.append(base | fake | {"shard": f"crops/{twins.name}.fake.npy"})
    twins.pairs.append(pair)


def _store(out: Path, twins: _Twins) -> None:
    write_shard(out, twins.name, np.stack([pair.real for pair in twins.pairs]), None)
    fakes = np.stack([pair.fake for pair in twins.pairs])
    write_shard(out, f"{twins.name}.fake", fakes, np.stack([pair.mask for pair in twins.pairs]))
