"""What a training is fed from: prepared sets, the rows of them that may be used, and which fakes each is to give. Knows no pixels.

Rows are drawn evenly by group, then by video, then by frame, so that neither a long video nor a much filmed person drowns the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from farm.errors import BadInput
from trainer.blend import KINDS as BLENDS
from trainer.config import UNSEEN
from trainer.manifest import CropSet
from trainer.resynth import open_redrawn

PAIR, UNPAIRED = "pair", "unpaired"
KINDS = (PAIR, UNPAIRED, *BLENDS)
"""A data set's own fake beside its original; its own fake beside any real; and fakes made here out of reals."""
MONO_SHARE = 0.12
"""Share of monochrome faces among those that blends are made from: they are many, old and coarse, and video is colour."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Rows that are drawn evenly by group, then by video, then by frame."""

    #: (n,) rows, those of one video side by side, and the videos of one group
    rows: NDArray[np.intp]
    #: (videos + 1,) where each video's rows start
    videos: NDArray[np.intp]
    #: (groups + 1,) where each group's videos start
    groups: NDArray[np.intp]

    @classmethod
    def of(cls, rows: NDArray[np.intp], groups: NDArray[np.intp], videos: NDArray[np.intp]) -> Pool:
        """A pool of some rows, given every row's group and video as numbers."""
        ordered = rows[np.lexsort((rows, videos[rows], groups[rows]))]
        group, video = groups[ordered], videos[ordered]
        starts = np.flatnonzero(np.r_[True, (np.diff(video) != 0) | (np.diff(group) != 0)][: len(ordered)])
        first = group[starts]
        group_starts = np.flatnonzero(np.r_[True, np.diff(first) != 0][: len(starts)])
        return cls(ordered, np.append(starts, len(ordered)), np.append(group_starts, len(starts)))

    def __len__(self) -> int:
        return len(self.rows)

    def draw(self, rng: np.random.Generator) -> int:
        """One row."""
        group = int(rng.integers(len(self.groups) - 1))
        video = int(rng.integers(self.groups[group], self.groups[group + 1]))
        return int(self.rows[rng.integers(self.videos[video], self.videos[video + 1])])


@dataclass(frozen=True, eq=False)
class Source:
    """One prepared set as material. Raises BadInput when made, if it cannot give what is asked of it."""

    crops: CropSet
    #: the rows that may be used, as reals, fakes and donors: those of one side
    rows: NDArray[np.intp]
    #: kind of fake -> its share among this source's fakes; any positive numbers
    kinds: Mapping[str, float]
    #: how often this source is drawn beside the others
    weight: float = 1.0
    #: share of monochrome faces among those that blends are made from; None takes them as they come
    mono_share: float | None = MONO_SHARE

    def __post_init__(self) -> None:
        where = self.crops.folder
        unknown = sorted(set(self.kinds) - set(KINDS))
        if unknown or not self.kinds:
            raise BadInput(f"{where}: fakes are of the kinds {', '.join(KINDS)}, not {', '.join(unknown) or 'none'}")
        if min(self.kinds.values()) <= 0 or self.weight <= 0:
            raise BadInput(f"{where}: shares and weights must be above 0; leave out what is not wanted")
        if self.mono_share is not None and not 0 <= self.mono_share <= 1:
            raise BadInput(f"{where}: the share of monochrome faces must lie in [0, 1], not {self.mono_share}")
        for kind in self.kinds:
            self._check(kind)

    @cached_property
    def groups(self) -> NDArray[np.intp]:
        """(N,) a number per row, equal for what belongs together: its group, where there is none its original, else its video."""
        named = zip(*(self.crops.column(name).tolist() for name in ("group", "original", "video")), strict=True)
        keys = [f"g:{group}" if group else f"v:{original or video}" for group, original, video in named]
        return np.asarray(np.unique(keys, return_inverse=True)[1], np.intp)

    @cached_property
    def is_mono(self) -> NDArray[np.bool_]:
        """(N,) bool, no colour of its own."""
        return self.crops.column("mono").astype(np.bool_)

    @cached_property
    def reals(self) -> Pool:
        """The usable reals."""
        return self._pool(self.rows[~self.crops.fake[self.rows]])

    @cached_property
    def colour(self) -> Pool:
        """Reals a blend can be made from: with the detector's five points, in colour (all of them, without a mono share)."""
        return self._pool(
            self._blendable if self.mono_share is None else self._blendable[~self.is_mono[self._blendable]]
        )

    @cached_property
    def mono(self) -> Pool:
        """Monochrome reals a blend can be made from; empty without a mono share."""
        return self._pool(
            self._blendable[:0] if self.mono_share is None else self._blendable[self.is_mono[self._blendable]]
        )

    @cached_property
    def without_points(self) -> int:
        """Usable reals that no blend can be made from, because the detector gave no points."""
        return len(self.reals) - len(self._blendable)

    @cached_property
    def fakes(self) -> dict[str, tuple[Pool, ...]]:
        """Kind ("pair", "unpaired") -> a pool of fakes per method."""
        fakes = self.rows[self.crops.fake[self.rows]]
        usable = np.zeros(len(self.crops), np.bool_)
        usable[self.rows] = True
        originals = self.crops.original_rows[fakes]
        areas = self.crops.column("mask_area").astype(np.float32)[fakes]
        paired = (originals >= 0) & usable[originals] & ~np.isnan(areas)
        return {PAIR: self._by_method(fakes[paired]), UNPAIRED: self._by_method(fakes[~paired])}

    @cached_property
    def redrawn(self) -> dict[str, tuple[NDArray[np.uint8], ...]]:
        """Kind ("redrawn", "unseen") -> (N, R, R, 3) uint8 for each of its generators; none where nobody asks for the kind."""
        return {
            kind: open_redrawn(self.crops, kind == UNSEEN) if kind in self.kinds else () for kind in ("redrawn", UNSEEN)
        }

    @cached_property
    def _blendable(self) -> NDArray[np.intp]:
        rows = self.reals.rows
        return rows[np.isfinite(self.crops.points[rows]).all(axis=(1, 2))]

    @cached_property
    def _videos(self) -> NDArray[np.intp]:
        return np.asarray(np.unique(self.crops.videos, return_inverse=True)[1], np.intp)

    def _pool(self, rows: NDArray[np.intp]) -> Pool:
        return Pool.of(rows, self.groups, self._videos)

    def _by_method(self, rows: NDArray[np.intp]) -> tuple[Pool, ...]:
        methods = self.crops.column("method")[rows]
        return tuple(self._pool(rows[methods == method]) for method in np.unique(methods))

    def _check(self, kind: str) -> None:
        missing = _LACKS.get(kind, _lacks_faces)(self)
        if missing:
            raise BadInput(
                f"{self.crops.folder} cannot give fakes of the kind {kind!r}: {missing}; leave the kind out of the configuration"
            )

    def __getstate__(self) -> dict[str, object]:
        # What was computed is computed again where it is needed; a loader process gets the set and its rows.
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def _lacks_faces(source: Source) -> str:
    if len(source.colour) or (source.mono_share and len(source.mono)):
        return ""
    return f"of its {len(source.reals)} usable reals {source.without_points} have no five points, and none is left"


def _lacks_donors(source: Source) -> str:
    if missing := _lacks_faces(source):
        return missing
    persons = {int(group) for pool in (source.colour, source.mono) for group in source.groups[pool.rows]}
    return "" if len(persons) > 1 else "all usable reals belong to one group, so nobody can lend a face"


def _lacks_redrawn(source: Source) -> str:
    missing = _lacks_faces(source)
    if not missing:
        assert source.redrawn  # raises BadInput itself where it is missing or stale
    return missing


def _lacks_pairs(source: Source) -> str:
    if source.fakes[PAIR]:
        return ""
    return f"none of its {sum(map(len, source.fakes[UNPAIRED]))} usable fakes has its original and a mask on this side"


def _lacks_unpaired(source: Source) -> str:
    if not source.fakes[UNPAIRED]:
        return "it has no usable fake beside those that have their original"
    return "" if len(source.reals) else "it has no usable real"


_LACKS: dict[str, Callable[[Source], str]] = {
    "donor": _lacks_donors,
    "redrawn": _lacks_redrawn,
    UNSEEN: _lacks_redrawn,
    PAIR: _lacks_pairs,
    UNPAIRED: _lacks_unpaired,
}


@dataclass(frozen=True, eq=False)
class Material:
    """All sources of a training (or of its validation). Travels to loader processes by pickle."""

    sources: tuple[Source, ...]
    _weights: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.sources:
            raise BadInput("a training needs at least one prepared set")
        weights = np.array([source.weight for source in self.sources], np.float64)
        object.__setattr__(self, "_weights", weights / weights.sum())

    @classmethod
    def of(cls, sources: Sequence[Source]) -> Material:
        """Material of some sources."""
        return cls(tuple(sources))

    def draw(self, rng: np.random.Generator) -> tuple[Source, str]:
        """A source by its weight, and a kind of fake by that source's shares."""
        source = self.sources[int(rng.choice(len(self.sources), p=self._weights))]
        shares = np.array(list(source.kinds.values()), np.float64)
        return source, str(rng.choice(list(source.kinds), p=shares / shares.sum()))
