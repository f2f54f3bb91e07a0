"""Where the big bytes live: a local folder or any S3 endpoint behind one contract. Knows keys and bytes, no SQL and no pixels.

A key is a relative path with `/` between its parts, such as `videos/<sha256>`. Every write is atomic: a reader sees the whole
object or none. A write survives the death of its process; on the local folder it is not forced to disk, so a power cut may lose it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TypeAlias
from urllib.parse import unquote

from farm.errors import BadInput
from farm.settings import settings

Data: TypeAlias = bytes | bytearray | memoryview

KEY_BYTES = 1024
"""S3's limit for a key; a part of it has to fit a file name besides."""

PART_BYTES = 255

SCRATCH = ".tmp"
"""Folder beside the keys where local writes begin; no key starts with it."""


class ObjectStore(Protocol):
    """The contract; tests/contract/test_object_store.py holds every implementation to it.

    Every method raises BadInput for a malformed key, BadObject where the object is missing and needed, and StorageAway where
    the storage does not answer, refuses or is full (a retry can help).
    """

    def put(self, key: str, data: Data) -> None:
        """Store the object, in place of an older one."""

    def put_if_absent(self, key: str, data: Data) -> bool:
        """Store the object unless there is one; True if it was stored.

        Of concurrent callers one gets True where the endpoint keeps `If-None-Match: *` strictly (AWS does, OpenStack Swift lets
        several pass). So let racers bring the same bytes, and count in SQL, never by this answer.
        """

    def put_file(self, key: str, path: Path) -> bool:
        """`put_if_absent` of a file of any size, streamed. Raises BadInput where the file cannot be read."""

    def get(self, key: str) -> bytes:
        """The whole object."""

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Up to `length` bytes from 0-based `start`; fewer at the end, none beyond it."""

    def get_file(self, key: str) -> AbstractContextManager[Path]:
        """The object as a file to read, for the length of the block: the local store's own file, or a temporary download."""

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""

    def size(self, key: str) -> int:
        """Size in bytes."""

    def list(self, prefix: str = "") -> Iterator[str]:
        """Keys that start with the prefix (a string, not a folder), in the order of their UTF-8 bytes, fetched page by page."""

    def delete(self, key: str) -> None:
        """Remove the object; no error where there is none."""

    def presign(self, key: str, seconds: int) -> str:
        """A URL that reads the object without credentials for that long. The local store's is a file:// URL: the file system's
        permissions rule, and it does not expire."""


def open_store(url: str, *, endpoint_url: str | None = None, region: str | None = None) -> ObjectStore:
    """The store of `file:///folder` or `s3://bucket/prefix`. An S3 endpoint left out is taken from the settings.

    Raises BadInput for any other URL, StorageAway where a folder cannot be made. S3 is not asked before the first use.
    """
    from farm.storage.local import LocalStore

    scheme, _, rest = url.partition("://")
    if scheme == "file" and rest.startswith("/"):
        return LocalStore(Path(unquote(rest)))
    bucket, _, prefix = rest.partition("/")
    if scheme == "s3" and bucket:
        # boto3 takes longer to load than everything else a farm without S3 needs to look at its results
        from farm.storage.s3 import S3Store

        endpoint = settings().s3_endpoint_url if endpoint_url is None else endpoint_url
        return S3Store(bucket, prefix, endpoint_url=endpoint, region=region or settings().s3_region)
    raise BadInput(f"{url!r} is no storage URL: expected file:///folder or s3://bucket/prefix")


def check_key(key: str) -> str:
    """The key itself. Raises BadInput where it is empty, too long, or would leave its folder."""
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in key or parts[0] == SCRATCH:
        raise BadInput(f"{key!r} is no object key: parts between slashes must be names, not empty, '.' or '..'")
    try:
        lengths = [len(part.encode()) for part in parts]
    except UnicodeEncodeError as error:
        raise BadInput(f"{key!r} is no object key: it is not valid Unicode") from error
    if sum(lengths) + len(parts) - 1 > KEY_BYTES or max(lengths) > PART_BYTES:
        raise BadInput(f"object key {key[:60]!r}... is too long: at most {KEY_BYTES} bytes, {PART_BYTES} per part")
    return key


def check_range(start: int, length: int) -> None:
    """Raises BadInput for a negative start or length."""
    if start < 0 or length < 0:
        raise BadInput(f"a range of {length} bytes from {start} does not exist")


def check_readable(path: Path) -> None:
    """Raises BadInput where the file to store cannot be opened: its fault, not the storage's."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
