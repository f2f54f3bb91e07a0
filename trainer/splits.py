"""Who is in training, validation and test: whole components of what belongs together, never single files. Knows no pixels.

A component is what hangs together over fake -> original links, equal non-empty groups and, where they are given, faces found to
be one person's. Its side is drawn from a hash of its name, so that it is the same for everybody who asks, and adding data to
other components moves nobody.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from farm.errors import BadInput
from trainer.manifest import CropSet

Side = Literal["train", "validation", "test"]
By = Literal["component", "video", "frame"]
SIDES: tuple[Side, ...] = get_args(Side)
SPLIT = "split.parquet"
VALIDATION_SHARE = 0.15
SEEDS_TRIED = 1000


@dataclass(frozen=True, slots=True)
class Policy:
    """How sides were drawn; stands in the file."""

    by: By = "component"
    #: expected shares of the components (videos, frames), in [0, 1); training gets the rest
    validation: float = VALIDATION_SHARE
    test: float = 0.0
    #: another seed, another drawing; 0 draws from a name's own hash
    seed: int = 0
    #: pairs of videos that were joined because their faces are alike
    same_face_links: int = 0

    def __post_init__(self) -> None:
        if self.by not in get_args(By):
            raise BadInput(f"a split is drawn by {', '.join(get_args(By))}, not by {self.by!r}")
        if min(self.validation, self.test) < 0 or self.validation + self.test >= 1:
            raise BadInput(
                f"validation {self.validation} and test {self.test} must be 0 or more and leave something to train on"
            )

    @property
    def asked(self) -> tuple[Side, ...]:
        """The sides that shall hold something."""
        wanted: dict[Side, bool] = {"train": True, "validation": self.validation > 0, "test": self.test > 0}
        return tuple(side for side in SIDES if wanted[side])

    def side(self, name: str) -> Side:
        """The side drawn for a name."""
        salted = f"{name}#{self.seed}" if self.seed else name
        at = int.from_bytes(hashlib.sha256(salted.encode()).digest()[:4], "big") / 2**32
        if at < self.validation:
            return "validation"
        return "test" if at < self.validation + self.test else "train"


@dataclass(frozen=True)
class Split:
    """Each video's component and side. Videos of one name in several sets are one video."""

    policy: Policy
    #: video -> the name of its component
    components: dict[str, str]

    @classmethod
    def open(cls, path: Path) -> Split:
        """Read DIR/split.parquet, given DIR or the file. Raises BadInput where it is missing or not of this kind."""
        file = path / SPLIT if path.is_dir() else path
        try:
            table = pq.read_table(file)
            policy = Policy(**json.loads(table.schema.metadata[b"policy"]))
            components = dict(
                zip(table.column("video").to_pylist(), table.column("component").to_pylist(), strict=True)
            )
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise BadInput(f"{file} is no split of a prepared data set ({error}); run `trainer split DIR`") from error
        return cls(policy, components)

    def save(self, folder: Path) -> Path:
        """Write DIR/split.parquet, whole or not at all; returns its path."""
        path, part = folder / SPLIT, folder / f"{SPLIT}.part"
        videos = sorted(self.components)
        sides = ["mixed" if self.policy.by == "frame" else self.side_of(video) for video in videos]
        table = pa.table({"video": videos, "component": [self.components[v] for v in videos], "side": sides})
        pq.write_table(table.replace_schema_metadata({"policy": json.dumps(asdict(self.policy))}), part)
        part.replace(path)
        return path

    def side_of(self, video: str) -> Side:
        """The side of a video. Raises BadInput for a video the split does not know, or if frames were split one by one."""
        if self.policy.by == "frame":
            raise BadInput(
                "this split draws every frame for itself, so a video has no side; ask for the sides of the rows"
            )
        component = self._component(video)
        return self.policy.side(component if self.policy.by == "component" else video)

    def sides(self, crops: CropSet) -> NDArray[Any]:
        """(N,) str, the side of every row of a set. Raises BadInput if the split does not know one of its videos."""
        if self.policy.by != "frame":
            of = {video: self.side_of(video) for video in np.unique(crops.videos)}
            return np.array([of[video] for video in crops.videos])
        for video in np.unique(crops.videos):
            self._component(video)
        frames = zip(crops.videos, crops.column("frame_index"), strict=True)
        return np.array([self.policy.side(f"{video}@{frame}") for video, frame in frames])

    def rows(self, crops: CropSet, side: Side) -> NDArray[np.intp]:
        """The rows of one side of a set."""
        return np.flatnonzero(self.sides(crops) == side)

    def _component(self, video: str) -> str:
        try:
            return self.components[video]
        except KeyError as error:
            raise BadInput(
                f"the split does not know the video {video!r}; run `trainer split` again, on all the sets that are used together"
            ) from error


@dataclass(frozen=True, slots=True)
class Leak:
    """Something that lies on more than one side."""

    kind: Literal["group", "original", "component", "video"]
    name: str
    #: its videos on each side
    videos: dict[str, tuple[str, ...]]

    def __str__(self) -> str:
        places = ", ".join(f"{len(videos)} in {side}" for side, videos in sorted(self.videos.items()))
        return f"{self.kind} {self.name}: {places}"


@dataclass(frozen=True, slots=True)
class SideCount:
    """What one side holds."""

    components: int
    videos: int
    crops: int
    reals: int
    fakes: int


def make_split(
    sets: Sequence[CropSet],
    by: By = "component",
    validation: float = VALIDATION_SHARE,
    test: float = 0.0,
    seed: int = 0,
    same_faces: Iterable[tuple[str, str]] = (),
) -> Split:
    """Draw a side for everything in the sets that are used together; they get one split.

    `by` "video" and "frame" draw every file or frame for itself: that leaks, and is there to show how much a leak flatters.
    `same_faces` are pairs of videos to be kept together because they show one person.
    Raises BadInput for shares that leave nothing to train on.
    """
    faces = list(same_faces)
    return Split(Policy(by, validation, test, seed, len(faces)), _components(_facts(sets), faces))


def leaks(split: Split, sets: Sequence[CropSet]) -> list[Leak]:
    """Every group, family of an original, component or video that the split parts, by kind and name; empty if it is clean."""
    families: dict[tuple[Any, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for crops in sets:
        facts = _facts([crops])
        for video, side in set(zip(crops.videos.tolist(), split.sides(crops).tolist(), strict=True)):
            originals, groups = facts[video]
            owners = [("component", split.components[video]), ("video", video)]
            owners += [("group", group) for group in groups] + [("original", o) for o in originals or {video}]
            for owner in owners:
                families[owner][side].add(video)
    parted = {owner: sides for owner, sides in families.items() if len(sides) > 1}
    return [
        Leak(kind, name, {side: tuple(sorted(videos)) for side, videos in sides.items()})
        for (kind, name), sides in sorted(parted.items())
    ]


def count(split: Split, sets: Sequence[CropSet]) -> dict[Side, SideCount]:
    """What every side holds, over all the sets."""
    sides = np.concatenate([split.sides(crops) for crops in sets])
    videos = np.concatenate([crops.videos for crops in sets])
    fake = np.concatenate([crops.fake for crops in sets])
    counted: dict[Side, SideCount] = {}
    for side in SIDES:
        here = sides == side
        names = set(videos[here].tolist())
        components = {split.components[video] for video in names}
        counted[side] = SideCount(
            len(components), len(names), int(here.sum()), int((here & ~fake).sum()), int((here & fake).sum())
        )
    return counted


def largest_component(split: Split) -> tuple[str, float]:
    """The component with most videos and its share of them: above a half, a disjoint split is hardly one."""
    name, videos = Counter(split.components.values()).most_common(1)[0]
    return name, videos / len(split.components)


def advice(split: Split) -> str:
    """What to do about a side that was asked for and is empty."""
    asked = set(split.policy.asked)
    names = set(split.components.values()) if split.policy.by == "component" else set(split.components)
    if len(names) < len(asked):
        name, share = largest_component(split)
        return (
            f"{share:.0%} of the videos hang together in {name}, and {len(names)} such component(s) cannot fill {len(asked)} sides: "
            "prepare more of the data set (of DFDC at least as many parts), or give finer groups in a CSV"
        )
    for seed in range(1, SEEDS_TRIED):
        policy = replace(split.policy, seed=seed)
        if {policy.side(name) for name in names} >= asked:
            return f"in a small set chance does that; `trainer split --seed {seed}` fills every side"
    return f"no seed below {SEEDS_TRIED} fills every side of {len(names)} components: ask for larger shares"


def _facts(sets: Sequence[CropSet]) -> dict[str, tuple[set[str], set[str]]]:
    """video -> its originals other than itself, and its groups."""
    facts: dict[str, tuple[set[str], set[str]]] = {}
    for crops in sets:
        seen = zip(*(crops.column(name).tolist() for name in ("video", "original", "group")), strict=True)
        for video, original, group in set(seen):
            originals, groups = facts.setdefault(video, (set(), set()))
            originals |= {original} - {"", video}
            groups |= {group} - {""}
    return facts


def _components(facts: dict[str, tuple[set[str], set[str]]], faces: list[tuple[str, str]]) -> dict[str, str]:
    """video -> the name of its component: its smallest group, else its smallest original, else its smallest video."""
    union = _Union()
    for video, (originals, groups) in facts.items():
        union.join(("video", video), ("video", video))
        # An original that is not in the set still ties its fakes together.
        for owner in [("video", o) for o in originals] + [("group", g) for g in groups]:
            union.join(("video", video), owner)
    for one, other in faces:
        union.join(("video", one), ("video", other))
    fakes = {video for video, (originals, _) in facts.items() if originals}
    members: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for kind, name in union.parents:
        rank = 0 if kind == "group" else 2 if name in fakes else 1
        members[union.root((kind, name))].append((rank, name))
    names = {root: min(of) for root, of in members.items()}
    return {video: names[union.root(("video", video))][1] for video in facts}


class _Union:
    """Disjoint sets of named things."""

    def __init__(self) -> None:
        self.parents: dict[tuple[str, str], tuple[str, str]] = {}

    def root(self, item: tuple[str, str]) -> tuple[str, str]:
        path = [item]
        while (above := self.parents.setdefault(path[-1], path[-1])) != path[-1]:
            path.append(above)
        for passed in path:
            self.parents[passed] = path[-1]
        return path[-1]

    def join(self, one: tuple[str, str], other: tuple[str, str]) -> None:
        self.parents[self.root(one)] = self.root(other)


def by_video(crops: CropSet, rows: NDArray[np.intp]) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """Every video of some rows with its own of them, in ascending order of both."""
    ordered = np.sort(rows)
    ordered = ordered[np.argsort(crops.videos[ordered], kind="stable")]
    names, starts = np.unique(crops.videos[ordered], return_index=True)
    ends = [*starts[1:].tolist(), len(ordered)]
    for name, start, end in zip(names.tolist(), starts.tolist(), ends[: len(names)], strict=True):
        yield name, ordered[start:end]


def as_side(name: str) -> Side:
    """A side by its name. Raises BadInput for another word."""
    if name not in SIDES:
        raise BadInput(f"a side is one of {', '.join(SIDES)}, not {name!r}")
    return name
