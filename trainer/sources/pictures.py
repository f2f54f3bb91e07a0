"""A folder of portraits: every picture is a video of one frame, real, its group the person as far as the name tells."""

from __future__ import annotations

from pathlib import Path

from farm.errors import BadInput
from trainer.portraits import known_people, person_of
from trainer.sources.listing import Listing, Source, listing

ENDINGS = frozenset((".jpg", ".jpeg", ".png"))


def read(root: Path) -> Listing:
    """List the pictures right in a folder. Raises BadInput where there is none."""
    if not root.is_dir():
        raise BadInput(f"{root} is no folder")
    people = known_people()
    names = sorted(path.name for path in root.iterdir() if path.suffix.lower() in ENDINGS)
    return listing(root, "portraits", [Source.real(name, person_of(name, people)) for name in names])
