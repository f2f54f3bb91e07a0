"""What a reader answers: the labelled files of a data set, and what was odd about it. Knows no layout, opens no video."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from farm.errors import BadInput

REAL, FAKE = "REAL", "FAKE"
VIDEO_ENDINGS = frozenset((".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"))


@dataclass(frozen=True, slots=True)
class Source:
    """One labelled video or picture."""

    #: path below the data set's root, with forward slashes
    video: str
    #: REAL or FAKE
    label: str
    #: `video` of what a fake was made from, named even where that file is missing; a real's own `video`; empty where nobody knows
    original: str
    #: what belongs together beyond the original; empty where nothing is known
    group: str
    #: how a fake was made, as the data set names it; "real" for reals
    method: str

    @classmethod
    def real(cls, video: str, group: str) -> Source:
        """A real is its own original."""
        return cls(video, REAL, video, group, "real")


@dataclass(frozen=True, slots=True)
class Remark:
    """Something odd about one file: counted, never silent."""

    #: path below the root
    video: str
    #: one phrase for all of its kind, to be counted by
    reason: str
    #: what is particular to this file
    detail: str = ""
    #: True where the file (or part of it) is in the set in spite of it
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """A data set before any of its files was opened."""

    root: Path
    #: dfdc, ffpp, celebdf, csv or portraits, with the option that chose among its files, if any: "ffpp c23"
    layout: str
    sources: tuple[Source, ...]
    remarks: tuple[Remark, ...]

    @property
    def holds_pictures(self) -> bool:
        """Pictures instead of videos."""
        return self.layout == "portraits"


def listing(root: Path, layout: str, sources: Iterable[Source], remarks: Iterable[Remark] = ()) -> Listing:
    """A checked listing: files that are missing are remarked and left out. Raises BadInput where nothing is left.

    A fake whose original is missing, or is a fake itself, stays, without a mask; its `original` stays too, since two fakes of
    one missing video still belong together.
    """
    found, odd = {}, list(remarks)
    for source in sources:
        if source.video in found:
            odd.append(Remark(source.video, "listed twice", "the first one counts"))
        elif not (root / source.video).is_file():
            odd.append(Remark(source.video, "file is missing", "named, but not below the root"))
        else:
            found[source.video] = source
    reals = {video for video, source in found.items() if source.label == REAL}
    for source in found.values():
        if source.label == FAKE and source.original not in reals:
            what = f"made from {source.original}" if source.original else "no original is named"
            odd.append(Remark(source.video, "fake without its original: mask unknown", what, kept=True))
    if not found:
        raise BadInput(f"{root} has no labelled file that is there, read as {layout}; {_counted(odd)}")
    return Listing(root, layout, tuple(sorted(found.values(), key=lambda s: s.video)), tuple(odd))


def _counted(remarks: list[Remark]) -> str:
    if not remarks:
        return "is it the right folder and layout?"
    return f"{len(remarks)} were left out, the first, {remarks[0].video}: {remarks[0].reason}"


def videos_below(folder: Path) -> list[Path]:
    """The videos right in a folder by name, sorted; none where the folder is missing."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEO_ENDINGS)


def label_of(text: object) -> str | None:
    """REAL or FAKE in any case and spacing, else None."""
    label = text.strip().upper() if isinstance(text, str) else ""
    return label if label in (REAL, FAKE) else None


def tie(links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Each name in the links -> the smallest name of its connected component."""
    root: dict[str, str] = {}

    def top(name: str) -> str:
        root.setdefault(name, name)
        while root[name] != name:
            root[name] = name = root[root[name]]
        return name

    for a, b in links:
        low, high = sorted((top(a), top(b)))
        root[high] = low
    return {name: top(name) for name in list(root)}
