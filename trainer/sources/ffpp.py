"""FaceForensics++ and the DeepFakeDetection set that comes in its folder.

    original_sequences/{youtube,actors}/c23/videos/ID.mp4
    manipulated_sequences/METHOD/c23/videos/TARGET_SOURCE.mp4        the face of SOURCE in the video TARGET

DeepFakeDetection names actors and scenes: NN__scene.mp4, and NN_MM__scene__HASH.mp4 with the face of MM in the video of NN. A fake's
original is its target. Its source's face is in it too, so the group ties both: it is the smallest id of all that fakes link,
which for FaceForensics++ are pairs, and may be all actors of DeepFakeDetection.
"""

from __future__ import annotations

import re
from pathlib import Path

from farm.errors import BadInput
from trainer.sources.listing import FAKE, Listing, Remark, Source, listing, tie, videos_below

_SWAP = re.compile(r"(\d+)_(\d+)")
_ACTORS_SWAP = re.compile(r"(\d+)_(\d+)__(.+)__\w+")


def read(root: Path, compression: str = "c23") -> Listing:
    """List the videos of one compression level (raw, c23, c40). Raises BadInput where the folder holds none of it."""
    known = {path.parent.name for path in root.glob("*_sequences/*/*/videos")}
    if compression not in known:
        there = f"it has {', '.join(sorted(known))}" if known else "original_sequences/*/*/videos is not there"
        raise BadInput(f"{root} has no FaceForensics++ videos of compression {compression}: {there}")
    reals = {
        origin: videos_below(root / "original_sequences" / origin / compression / "videos")
        for origin in ("youtube", "actors")
    }
    fakes, remarks = _fakes(root, compression)
    links = [(_key(origin, path.stem), _key(origin, path.stem)) for origin, paths in reals.items() for path in paths]
    links += [(target, source) for _, _, target, source in fakes]
    tied = tie(links)
    sources = [
        Source.real(path.relative_to(root).as_posix(), tied[_key(origin, path.stem)])
        for origin, paths in reals.items()
        for path in paths
    ]
    for path, original, target, _ in fakes:
        method = path.parents[2].name
        sources.append(Source(path.relative_to(root).as_posix(), FAKE, original, tied[target], method))
    return listing(root, f"ffpp {compression}", sources, remarks)


def _key(origin: str, stem: str) -> str:
    """Who is seen in an original: its own id for youtube, the actor's number for actors."""
    return f"ffpp-{origin}-{stem.partition('__')[0]}"


def _fakes(root: Path, compression: str) -> tuple[list[tuple[Path, str, str, str]], list[Remark]]:
    """(file, its original, who is seen in the target, who in the source) of every fake, and the names that say neither."""
    found, remarks = [], []
    for folder in sorted((root / "manipulated_sequences").glob(f"*/{compression}/videos")):
        for path in videos_below(folder):
            if match := _ACTORS_SWAP.fullmatch(path.stem):
                origin, (target, source, scene) = "actors", match.groups()
                name = f"{target}__{scene}"
            elif match := _SWAP.fullmatch(path.stem):
                origin, (target, source) = "youtube", match.groups()
                name = target
            else:
                remarks.append(Remark(path.relative_to(root).as_posix(), "name tells no target and source"))
                continue
            original = f"original_sequences/{origin}/{compression}/videos/{name}{path.suffix}"
            found.append((path, original, _key(origin, target), _key(origin, source)))
    return found, remarks
