"""Celeb-DF v2.

    Celeb-real/idX_NNNN.mp4    YouTube-real/NNNNN.mp4    Celeb-synthesis/idX_idY_NNNN.mp4    List_of_testing_videos.txt

A fake idX_idY_NNNN is the video idX_NNNN with the face of idY. Both people are seen in it, so the group is the smallest id of all
that the fakes link; in the whole set these are few and large groups. The official test list overlaps in people with the rest: use it
to compare with others' figures, not to claim what holds for new people.
"""

from __future__ import annotations

import re
from pathlib import Path

from farm.errors import BadInput
from trainer.sources.listing import FAKE, Listing, Remark, Source, listing, tie, videos_below

TEST_LIST = "List_of_testing_videos.txt"
PARTS = ("all", "test", "rest")
_REAL = re.compile(r"(id\d+)_(\d+)")
_FAKE = re.compile(r"(id\d+)_(id\d+)_(\d+)")


def read(root: Path, part: str = "all") -> Listing:
    """List the set: `all` of it, the official `test` list, or the `rest`. Raises BadInput where folders or that list are missing."""
    if part not in PARTS:
        raise BadInput(f"the part {part!r} of Celeb-DF is not one of {', '.join(PARTS)}")
    folders = ("Celeb-real", "YouTube-real", "Celeb-synthesis")
    if not any((root / folder).is_dir() for folder in folders):
        raise BadInput(f"{root} is no Celeb-DF folder: {', '.join(folders)} are not in it")
    fakes, remarks = _matched(root, "Celeb-synthesis", _FAKE)
    reals, more = _matched(root, "Celeb-real", _REAL)
    tied = tie([(m[1], m[1]) for _, m in reals] + [(m[1], m[2]) for _, m in fakes])
    sources = [Source.real(video, f"celebdf-{tied[m[1]]}") for video, m in reals]
    sources += [
        Source.real(f"YouTube-real/{path.name}", f"celebdf-youtube-{path.stem}")
        for path in videos_below(root / "YouTube-real")
    ]
    for video, m in fakes:
        original = f"Celeb-real/{m[1]}_{m[3]}{Path(video).suffix}"
        sources.append(Source(video, FAKE, original, f"celebdf-{tied[m[1]]}", "Celeb-synthesis"))
    if part != "all":
        listed = _test_videos(root)
        sources = [source for source in sources if (source.video in listed) == (part == "test")]
        if part == "test":
            remarks += [Remark(video, "file is missing", TEST_LIST) for video in listed - {s.video for s in sources}]
    return listing(root, "celebdf" if part == "all" else f"celebdf {part}", sources, remarks + more)


def _matched(root: Path, folder: str, name: re.Pattern[str]) -> tuple[list[tuple[str, re.Match[str]]], list[Remark]]:
    found, remarks = [], []
    for path in videos_below(root / folder):
        video = f"{folder}/{path.name}"
        if match := name.fullmatch(path.stem):
            found.append((video, match))
        else:
            remarks.append(Remark(video, "name tells no identity"))
    return found, remarks


def _test_videos(root: Path) -> set[str]:
    """Paths in the official list, whose lines are `1 YouTube-real/00170.mp4`: a label (1 = real), which the folder says too."""
    try:
        lines = (root / TEST_LIST).read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise BadInput(f"{root / TEST_LIST} cannot be read ({error}); leave the part away, or add the file") from error
    return {line.split(maxsplit=1)[1].strip() for line in lines if len(line.split(maxsplit=1)) == 2}
