"""Prepared data sets in the object store: uploaded once per content, mirrored by workers into a folder, verified file by file.

    datasets/files/<sha256>       one file's bytes, shared by all data sets that hold it
    datasets/<digest>.json        {relative path: {"sha256", "size_bytes"}}; its sha256 is the digest; written last: the set is whole

Knows files and digests, not what a manifest says. A set whose split was made anew is another digest that shares its pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from farm.errors import BadInput, BadObject, StorageAway
from farm.storage import ObjectStore, check_key

MANIFEST = "manifest.parquet"
"""A folder without it is no prepared data set, or one that is not whole yet."""

WHOLE = ".whole"
"""Beside a mirrored set's files once every one of them was verified."""

CHUNK_BYTES = 8 << 20

Told = Callable[[int, int], None]
"""Called with files done and files in all."""


def upload_dataset(store: ObjectStore, folder: Path, told: Told | None = None) -> str:
    """Store the prepared set of this folder; its digest. What is stored already is not sent again, so an upload can be repeated.

    Raises BadInput where the folder holds no whole set or cannot be read, StorageAway.
    """
    if not (folder / MANIFEST).is_file():
        raise BadInput(f"{folder} is no prepared data set: it has no {MANIFEST}; make one with `trainer prepare`")
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.suffix != ".part" and path.name != WHOLE
    )
    listing: dict[str, dict[str, Any]] = {}
    for done, path in enumerate(files):
        name = path.relative_to(folder).as_posix()
        check_key(name)
        sha256 = _sha256(path)
        store.put_file(f"datasets/files/{sha256}", path)
        listing[name] = {"sha256": sha256, "size_bytes": path.stat().st_size}
        if told is not None:
            told(done + 1, len(files))
    text = json.dumps(listing, sort_keys=True, indent=0).encode()
    digest = hashlib.sha256(text).hexdigest()
    store.put_if_absent(_listing_key(digest), text)
    return digest


def mirror_dataset(store: ObjectStore, digest: str, cache: Path, told: Told | None = None) -> Path:
    """The folder below `cache` with a verified copy of the set; files that an earlier try brought are kept if they are right.

    Raises BadObject where an object is missing or damaged, StorageAway also where this disk is full.
    """
    folder = cache / digest
    if (folder / WHOLE).is_file():
        return folder
    files = _listing(store, digest)
    for done, (name, file) in enumerate(sorted(files.items())):
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            right = path.is_file() and path.stat().st_size == file["size_bytes"] and _sha256(path) == file["sha256"]
            if not right:
                fetch(store, f"datasets/files/{file['sha256']}", path, file["sha256"])
        except OSError as error:
            raise StorageAway(f"the training folder {cache} cannot be written: {error.strerror} ({name})") from error
        if told is not None:
            told(done + 1, len(files))
    (folder / WHOLE).touch()
    return folder


def fetch(store: ObjectStore, key: str, path: Path, sha256: str) -> None:
    """Copy an object to a file, whole or not at all, in bounded memory. Raises BadObject where its bytes are not the expected ones."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    digest, size = hashlib.sha256(), store.size(key)
    try:
        with part.open("wb") as file:
            for start in range(0, size, CHUNK_BYTES):
                piece = store.get_range(key, start, CHUNK_BYTES)
                digest.update(piece)
                file.write(piece)
        if digest.hexdigest() != sha256:
            raise BadObject(f"object {key} is damaged: its sha256 is {digest.hexdigest()}, expected {sha256}")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _listing(store: ObjectStore, digest: str) -> dict[str, dict[str, Any]]:
    text = store.get(_listing_key(digest))
    if hashlib.sha256(text).hexdigest() != digest:
        raise BadObject(f"the listing of data set {digest} is damaged")
    files: dict[str, dict[str, Any]] = json.loads(text)
    for name in files:
        check_key(name)  # no path leaves its folder
    return files


def _listing_key(digest: str) -> str:
    return f"datasets/{digest}.json"


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
