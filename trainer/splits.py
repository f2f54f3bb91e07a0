"""Who is in training and who in validation: by person, never by file, and the same for everybody who asks."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from trainer.prepare import Faces

VALIDATION_SHARE = 0.15


def split(faces: Faces) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of (training, validation). Validation holds colour portraits of persons of whom training has no picture at all.

    A person's side is drawn from a hash of their name, so that adding pictures moves nobody across.
    """
    held_out = {person for person in faces.persons if _draw(person) < VALIDATION_SHARE}
    held = np.array([person in held_out for person in faces.persons])
    return np.flatnonzero(~held), np.flatnonzero(held & ~faces.mono)


def _draw(person: str) -> float:
    return int.from_bytes(hashlib.sha256(person.encode()).digest()[:4], "big") / 2**32
