"""What sets portraits apart from video: old prints, toned paper, one person under two names. Knows pixels and file names, no data set."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

MONO_CHROMA = 8.0
"""Mean distance (Lab units of 8 bits) of a crop's colours from its own mean colour below which it counts as monochrome."""
ENGRAVING_EDGES = 2600.0
"""Variance of the grey Laplacian at half side above which a monochrome crop counts as an engraving or a coarse print screen."""
TWIN_BITS = 6
"""Two crops whose 64-bit difference hashes are this near are taken for one photograph, hence one person."""


def is_mono(crop: NDArray[np.uint8]) -> bool:
    """True for grey, sepia and toned pictures: one hue whatever the brightness."""
    chroma = cv2.cvtColor(crop, cv2.COLOR_RGB2LAB)[:, :, 1:].astype(np.float32)
    return bool(np.abs(chroma - chroma.mean(axis=(0, 1))).mean() * 2 < MONO_CHROMA)


def is_engraving(crop: NDArray[np.uint8]) -> bool:
    """True for drawn lines and print screens, which have far more fine edges than any photograph of this size."""
    grey = cv2.cvtColor(cv2.resize(crop, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    return bool(cv2.Laplacian(grey, cv2.CV_32F).var() > ENGRAVING_EDGES)


def known_people() -> dict[int, str]:
    """ICPSR number -> bioguide id of members of the US Congress: it tells which portraits of the two groups are one person."""
    with (Path(__file__).parent / "people.csv").open(newline="") as file:
        return {int(row["icpsr"]): row["bioguide"] for row in csv.DictReader(file)}


def person_of(name: str, people: dict[int, str]) -> str:
    """The person in a file: a bioguide id where the name carries one or its ICPSR number is known, else the file's own name."""
    if match := re.search(r"([A-Z]\d{6})\.\w+$", name):
        return match.group(1)
    if match := re.search(r"(\d{6})\.\w+$", name):
        return people.get(int(match.group(1)), f"icpsr-{int(match.group(1))}")
    return name


def join_twins(persons: list[str], crops: NDArray[np.uint8]) -> list[str]:
    """Give files that hold the same photograph under two names one person, so that no split can part them."""
    bits = np.stack([_difference_hash(crop) for crop in crops])
    joined = list(persons)
    for i in range(len(crops) - 1):
        for j in np.flatnonzero((bits[i + 1 :] != bits[i]).sum(axis=1) <= TWIN_BITS) + i + 1:
            old, new = joined[j], joined[i]
            joined = [new if person == old else person for person in joined] if old != new else joined
    return joined


def _difference_hash(crop: NDArray[np.uint8]) -> NDArray[np.bool_]:
    grey = cv2.resize(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    return np.asarray((grey[:, 1:] > grey[:, :-1]).ravel())
