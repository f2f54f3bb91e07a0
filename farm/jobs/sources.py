"""What a user named, as single sources: files, folders, globs, s3:// prefixes, CSV manifests. Reads names, never the bytes of a video."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from glob import has_magic, iglob
from pathlib import Path, PurePosixPath
from typing import Any

from farm.errors import BadInput, FarmError, NothingToScan
from farm.storage import open_store

VIDEO_SUFFIXES = frozenset(
    ".3g2 .3gp .asf .avi .f4v .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogv .qt .ts .vob .webm .wmv".split()  # noqa: SIM905
)
"""What counts as a video in a folder or under a prefix. A file that is named itself is always taken."""

LABELS = ("FAKE", "REAL")


@dataclass(frozen=True, slots=True)
class Source:
    """One path to scan, as one row of the results."""

    #: a local path or s3:// URI, where the bytes are
    path: str
    #: what the results call it
    name: str
    #: FAKE or REAL where a manifest said so
    label: str | None = None
    #: whatever else a manifest said of it
    attributes: dict[str, Any] = field(default_factory=dict)
    #: why there is nothing to read, for a path that names nothing
    error: str | None = None


def expand(paths: Iterable[str | Path]) -> Iterator[Source]:
    """Every source that these paths name, in order; a folder's files sorted by path.

    A path that names nothing becomes a source with an error, so that the others go on. Raises NothingToScan where nothing was named
    or, at the end, where no folder or pattern that was searched has a video, and BadInput for a manifest that does not parse.
    """
    named = [str(path) for path in paths]
    if not named:
        raise NothingToScan("nothing to scan: name files, folders, patterns, s3:// prefixes or a CSV manifest")
    empty: list[str] = []
    for path in named:
        found = False
        for source in _sources(path):
            found = True
            yield source
        if not found:
            empty.append(path)
    if len(empty) == len(named):
        where = ", ".join(shown(path) for path in empty)
        raise NothingToScan(
            f"no video in {where} (a video is a file that ends in .mp4, .mov, .mkv, .webm, .avi, .gif ...)"
        )


def shown(path: str) -> str:
    """A path as it can be stored and printed: undecodable bytes escaped, no NUL."""
    return path.replace("\x00", "\\0").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _sources(path: str) -> Iterator[Source]:
    here = Path(path)
    if path.startswith("s3://"):
        yield from _from_s3(path)
    elif _is_folder(here):
        yield from _from_folder(here)
    elif here.suffix.lower() == ".csv":
        yield from _from_manifest(here)
    elif has_magic(path) and not os.path.lexists(path):
        for match in sorted(iglob(path, recursive=True)):  # noqa: PTH207  Path.glob takes no absolute pattern
            yield from _from_folder(Path(match)) if _is_folder(Path(match)) else (_file(match),)
    else:
        yield _file(path)


def _file(path: str) -> Source:
    return Source(path, Path(path).name or path)


def _is_folder(path: Path) -> bool:
    """False also for a name that is too long, or in a folder that may not be entered: as a file it becomes a result that says so."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _from_folder(folder: Path) -> Iterator[Source]:
    closed: list[OSError] = []
    for parent, folders, names in os.walk(folder, onerror=closed.append):
        folders.sort()
        for path in (Path(parent) / name for name in sorted(names)):
            if path.suffix.lower() in VIDEO_SUFFIXES:
                yield Source(str(path), str(path.relative_to(folder)))
    for error in closed:
        yield Source(error.filename, error.filename, error=f"the folder cannot be listed: {error.strerror}")


def _from_s3(uri: str) -> Iterator[Source]:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    try:
        for key in open_store(f"s3://{bucket}").list(prefix):
            if key == prefix or PurePosixPath(key).suffix.lower() in VIDEO_SUFFIXES:
                yield Source(f"s3://{bucket}/{key}", key.removeprefix(prefix).lstrip("/") or PurePosixPath(key).name)
    except FarmError as error:
        yield Source(uri, PurePosixPath(uri).name, error=f"{uri} cannot be listed: {error}")


def _from_manifest(manifest: Path) -> Iterator[Source]:
    """A CSV with a column `path` (relative to the manifest's folder), optionally `label` (FAKE or REAL), and whatever else."""
    try:
        with manifest.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.DictReader(file)
            if "path" not in (reader.fieldnames or []):
                raise BadInput(f"manifest {manifest}: the first line has no column 'path'")
            for row in reader:
                yield _from_row(manifest, reader.line_num, row)
    except (OSError, csv.Error) as error:
        if isinstance(error, FileNotFoundError):
            yield _file(str(manifest))
        else:
            raise BadInput(f"manifest {manifest} cannot be read: {error}") from error


def _from_row(manifest: Path, line: int, row: dict[str, Any]) -> Source:
    path, label = (row.pop("path") or "").strip(), (row.pop("label", None) or "").strip().upper()
    if not path:
        raise BadInput(f"manifest {manifest}, line {line}: the path is empty")
    if label and label not in LABELS:
        raise BadInput(f"manifest {manifest}, line {line}: label is {label!r}, expected FAKE, REAL or nothing")
    attributes = {shown(str(key)): shown(str(value)) for key, value in row.items() if key and value}
    where = path if path.startswith("s3://") else str(manifest.parent / path)
    return Source(where, path, label or None, attributes)
