"""The Deepfake Detection Challenge: `dfdc_train_part_*/metadata.json`, or one flat folder with its metadata.json.

    {"name.mp4": {"label": "FAKE", "split": "train", "original": "other.mp4"}, ...}

An original lies in its fakes' own folder. The group is the folder's name: DFDC names no actors, and its parts were cut so that an
actor can appear in several videos of one part; videos of one part must therefore not be parted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from farm.errors import BadInput
from trainer.sources.listing import FAKE, Listing, Remark, Source, label_of, listing

METADATA = "metadata.json"


def read(root: Path) -> Listing:
    """List a DFDC folder. Raises BadInput where there is no metadata.json, or one that is not of the shape above."""
    files = sorted(root.glob(f"dfdc_train_part_*/{METADATA}")) or sorted(root.glob(METADATA))
    if not files:
        raise BadInput(f"{root} is no DFDC folder: neither dfdc_train_part_*/{METADATA} nor {METADATA} is in it")
    sources: list[Source] = []
    remarks: list[Remark] = []
    for file in files:
        for item in _of_one(root, file):
            (sources if isinstance(item, Source) else remarks).append(item)  # type: ignore[arg-type]
    return listing(root, "dfdc", sources, remarks)


def _of_one(root: Path, file: Path) -> Iterator[Source | Remark]:
    below = file.parent.relative_to(root)
    group = file.parent.resolve().name
    for name, row in _metadata(file).items():
        video = (below / name).as_posix()
        label = label_of(row.get("label")) if isinstance(row, dict) else None
        if Path(name).name != name:
            yield Remark(video, "name leads out of its folder", name)
        elif label is None:
            stated = row.get("label") if isinstance(row, dict) else row
            yield Remark(video, "label is neither REAL nor FAKE", repr(stated))
        elif label == FAKE:
            stated = row.get("original")
            original = (below / stated).as_posix() if isinstance(stated, str) and stated else ""
            yield Source(video, FAKE, original, group, "dfdc")
        else:
            yield Source.real(video, group)


def _metadata(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{file} cannot be read as JSON ({error}); download this part again") from error
    if not isinstance(found, dict):
        raise BadInput(f"{file} holds a {type(found).__name__}, not an object of file names")
    return found
