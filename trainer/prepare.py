"""A folder of portraits becomes one cache of aligned crops, cut by exactly the code the farm cuts videos with.

The cache is a folder of plain arrays that loader processes map without copying; it is local, ignored by git and can always
be made again. Knows no label, blend or network. N faces, S crop side.
"""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from farm.contracts import CROP_SIDE_PX, Box, Face
from farm.errors import BadInput
from farm.media.crops import cut, inside, square_box
from farm.media.faces import Detector, open_detector

CROP_MARGIN = 0.15
"""The face box is widened by this share of its longer side on each side: in training, on the card, and so in the farm."""

MONO_CHROMA = 8.0
"""Mean distance (Lab units of 8 bits) of a crop's colours from its own mean colour below which it counts as monochrome."""
ENGRAVING_EDGES = 2600.0
"""Variance of the grey Laplacian at half side above which a monochrome crop counts as an engraving or a coarse print screen."""
TWIN_BITS = 6
"""Two crops whose 64-bit difference hashes are this near are taken for one photograph, hence one person."""


@dataclass(frozen=True, slots=True)
class Faces:
    """The crop cache. Row i of every array belongs to names[i]."""

    #: (N, S, S, 3) uint8 RGB, possibly memory-mapped
    crops: NDArray[np.uint8]
    #: (N, 5, 2) float32, the detector's five points in crop pixels
    points: NDArray[np.float32]
    #: (N, 4) float32, the face box x0 y0 x1 y1 in crop pixels
    boxes: NDArray[np.float32]
    #: N file names
    names: tuple[str, ...]
    #: N persons as far as they are known; equal strings are never split
    persons: tuple[str, ...]
    #: (N,) bool, no colour of its own
    mono: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.names)


def prepare(folder: Path, cache: Path) -> Faces:
    """Detect, crop and cache the largest face of every picture in a folder. Raises BadInput if there is none.

    Pictures without a face, and engravings, are left out; their names are kept in `skipped.json`.
    """
    detector = open_detector("centerface", side_px=320, confidence=0.5)
    pictures = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    crops, points, boxes, names, mono = [], [], [], [], []
    skipped: dict[str, str] = {}
    for picture in pictures:
        found = crop_largest(picture, detector)
        if isinstance(found, str):
            skipped[picture.name] = found
            continue
        crop, five, box = found
        crops.append(crop)
        points.append(five)
        boxes.append(box)
        names.append(picture.name)
        mono.append(is_mono(crop))
    if not names:
        raise BadInput(f"no face was found in any of the {len(pictures)} pictures of {folder}")
    persons = join_twins([person_of(name, known_people()) for name in names], np.stack(crops))
    cache.mkdir(parents=True, exist_ok=True)
    for key, array in (("crops", crops), ("points", points), ("boxes", boxes), ("mono", mono)):
        np.save(cache / f"{key}.npy", np.asarray(array))
    (cache / "skipped.json").write_text(json.dumps(skipped, indent=1))
    # Written last: its presence says that the cache is whole.
    (cache / "faces.json").write_text(json.dumps({"margin": CROP_MARGIN, "names": names, "persons": persons}))
    return load(cache)


def load(cache: Path) -> Faces:
    """Open a cache made by `prepare`. Raises BadInput if it is missing or was cut with another margin."""
    try:
        index = json.loads((cache / "faces.json").read_text())
    except OSError as error:
        raise BadInput(f"{cache} holds no crop cache; run `trainer prepare` first") from error
    if index["margin"] != CROP_MARGIN:
        raise BadInput(
            f"{cache} was cut with margin {index['margin']}, the trainer's is {CROP_MARGIN}; prepare it again"
        )
    arrays = {key: np.load(cache / f"{key}.npy", mmap_mode="r") for key in ("crops", "points", "boxes", "mono")}
    return Faces(**arrays, names=tuple(index["names"]), persons=tuple(index["persons"]))


def crop_largest(
    picture: Path, detector: Detector
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]] | str:
    """(crop, points, box) of the largest face of a picture, or the reason why there is none."""
    bgr = cv2.imread(str(picture), cv2.IMREAD_COLOR)
    if bgr is None:
        return "not a readable picture"
    rgb = np.ascontiguousarray(bgr[:, :, ::-1], np.uint8)
    faces = [face for face in detector.detect(rgb) if face.points is not None]
    if not faces:
        return "no face found"
    face = max(faces, key=lambda f: f.box.area)
    crop_box = square_box(face.box, CROP_MARGIN)
    crop = cut(rgb, crop_box, CROP_SIDE_PX)
    if is_mono(crop) and is_engraving(crop):
        return "engraving or coarse print"
    return crop, *_in_crop(face, inside(crop_box, *rgb.shape[:2]))


def _in_crop(face: Face, crop_box: Box) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    scale = CROP_SIDE_PX / crop_box.width
    corner = np.array([crop_box.x0, crop_box.y0], np.float32)
    corners = np.array([[face.box.x0, face.box.y0], [face.box.x1, face.box.y1]], np.float32)
    assert face.points is not None
    return ((face.points - corner) * scale).astype(np.float32), ((corners - corner) * scale).reshape(4).astype(
        np.float32
    )


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
