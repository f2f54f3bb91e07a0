"""A folder of face crops with a label per picture, as the seed's evaluation takes it. Knows pictures and labels; no engine.

Labels are in DFDC's form, `{"aaa.jpg": {"label": "FAKE"}}`; what else stands there is not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from farm.contracts import CROP_SIDE_PX
from farm.errors import BadInput

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
FAKE, REAL = "FAKE", "REAL"


@dataclass(frozen=True, slots=True)
class LabelledPicture:
    """One picture whose label is known."""

    path: Path
    #: relative to its folder, with slashes
    name: str
    fake: bool


@dataclass(frozen=True, slots=True)
class LabelledFolder:
    """What a folder and its labels agree on."""

    #: in order of their names
    pictures: tuple[LabelledPicture, ...]
    #: names of pictures that no label stands for
    unlabelled: tuple[str, ...]
    #: labels that no picture stands for
    unused_labels: int


def labelled_folder(folder: Path, labels: Path) -> LabelledFolder:
    """The pictures in a folder and below it that have a label, found by relative path, else by file name, else by stem.

    By stem, so that DFDC's own metadata.json, which names videos, serves for crops called after them. Raises BadInput where folder or
    labels cannot be read, a label is neither REAL nor FAKE, a stem stands for both, or no picture has a label.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder: --images names a folder of face crops")
    known = _read_labels(labels)
    by_stem = _by_stem(known)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not names:
        raise BadInput(f"{folder} holds no picture ({', '.join(sorted(SUFFIXES))})")
    keys = {name: _key(name, known, by_stem) for name in names}
    pictures = tuple(LabelledPicture(folder / name, name, known[key]) for name, key in keys.items() if key is not None)
    unlabelled = tuple(name for name, key in keys.items() if key is None)
    if not pictures:
        raise BadInput(
            f"none of the {len(names)} pictures in {folder} is named in {labels}: its keys are file names such as {names[0]!r}"
        )
    return LabelledFolder(pictures, unlabelled, len(known.keys() - keys.values()))


def _read_labels(path: Path) -> dict[str, bool]:
    """Key -> whether it is FAKE. Raises BadInput."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"the labels {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BadInput(f"the labels {path} are no JSON: {error}") from error
    if not isinstance(values, dict):
        raise BadInput(
            f'the labels {path} are a JSON {type(values).__name__}, expected {{"NAME": {{"label": "FAKE"}}, …}}'
        )
    return {name: _is_fake(path, name, value) for name, value in values.items()}


def _is_fake(path: Path, name: str, value: Any) -> bool:
    label = value.get("label") if isinstance(value, dict) else None
    label = label.strip().upper() if isinstance(label, str) else label
    if label not in (FAKE, REAL):
        raise BadInput(f'{path}: {name!r} has {value!r}, expected {{"label": "REAL"}} or {{"label": "FAKE"}}')
    return bool(label == FAKE)


def _by_stem(known: dict[str, bool]) -> dict[str, str | None]:
    """Stem -> its key; None where keys of one stem have both labels."""
    found: dict[str, str | None] = {}
    for key, fake in known.items():
        stem = Path(key).stem
        other = found.get(stem, key)
        found[stem] = None if other is None or known[other] != fake else other
    return found


def _key(name: str, known: dict[str, bool], by_stem: dict[str, str | None]) -> str | None:
    """The key that labels a picture; None where none does. Raises BadInput where two keys contradict each other."""
    path = Path(name)
    for key in (name, path.name):
        if key in known:
            return key
    if path.stem not in by_stem:
        return None
    labelled = by_stem[path.stem]
    if labelled is None:
        raise BadInput(f"the labels call {path.stem!r} both REAL and FAKE: name {name!r} itself")
    return labelled


def read_crops(pictures: Sequence[LabelledPicture]) -> tuple[NDArray[np.uint8], NDArray[np.bool_], int]:
    """(N, S, S, 3) uint8 RGB, black where a picture cannot be read; (N,) whether it could; how many were of another size.

    A picture of another size is resized to S x S whatever its shape, as the seed does: area averages where it shrinks, bilinear where
    it grows.
    """
    crops = np.zeros((len(pictures), CROP_SIDE_PX, CROP_SIDE_PX, 3), np.uint8)
    readable, resized = np.zeros(len(pictures), np.bool_), 0
    for row, picture in enumerate(pictures):
        bgr = _decoded(picture.path)
        if bgr is None:
            continue
        if bgr.shape[:2] != (CROP_SIDE_PX, CROP_SIDE_PX):
            resized += 1
            shrinks = min(bgr.shape[:2]) > CROP_SIDE_PX
            how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            bgr = np.asarray(cv2.resize(bgr, (CROP_SIDE_PX, CROP_SIDE_PX), interpolation=how), np.uint8)
        cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=crops[row])
        readable[row] = True
    return crops, readable, resized


def _decoded(path: Path) -> NDArray[np.uint8] | None:
    """The picture as BGR, or None where it is none."""
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
        bgr = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    except (OSError, cv2.error):
        return None
    return None if bgr is None else np.asarray(bgr, np.uint8)
