"""Objects as files under one folder."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from farm.errors import BadObject, StorageAway
from farm.storage import SCRATCH, Data, check_key, check_range, check_readable


class LocalStore:
    """Concurrent writers, also of several processes, are safe."""

    def __init__(self, root: Path) -> None:
        """Makes the folder. Raises StorageAway where that fails."""
        self.root = root
        try:
            (root / SCRATCH).mkdir(parents=True, exist_ok=True)
            _sweep(root / SCRATCH)
        except OSError as error:
            raise StorageAway(f"the storage folder {root} cannot be used: {error.strerror}") from error

    def __repr__(self) -> str:
        return f"LocalStore({str(self.root)!r})"

    def put(self, key: str, data: Data) -> None:
        self._write(key, lambda scratch: _write_all(scratch, data), replace=True)

    def put_if_absent(self, key: str, data: Data) -> bool:
        return not self.exists(key) and self._write(key, lambda scratch: _write_all(scratch, data), replace=False)

    def put_file(self, key: str, path: Path) -> bool:
        check_readable(path)
        return not self.exists(key) and self._write(key, lambda scratch: shutil.copyfile(path, scratch), replace=False)

    def _write(self, key: str, fill: Callable[[Path], object], *, replace: bool) -> bool:
        target = self._path(key)
        with self._errors(key):
            scratch = self.root / SCRATCH / f"{os.getpid()}-{secrets.token_hex(8)}"
            try:
                fill(scratch)
                target.parent.mkdir(parents=True, exist_ok=True)
                if replace:
                    scratch.replace(target)
                else:
                    target.hardlink_to(scratch)
            except FileExistsError:
                if target.is_file():
                    return False
                raise
            finally:
                scratch.unlink(missing_ok=True)
        return True

    def get(self, key: str) -> bytes:
        path = self._path(key)
        with self._errors(key):
            return path.read_bytes()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        check_range(start, length)
        path = self._path(key)
        with self._errors(key), path.open("rb") as file:
            file.seek(start)
            return file.read(length)

    @contextmanager
    def get_file(self, key: str) -> Iterator[Path]:
        self.size(key)
        yield self._path(key)

    def exists(self, key: str) -> bool:
        path = self._path(key)
        with self._errors(key):
            found = path.is_file()
        if not found:
            self._check_present()
        return found

    def size(self, key: str) -> int:
        path = self._path(key)
        with self._errors(key):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
            return path.stat().st_size

    def list(self, prefix: str = "") -> Iterator[str]:
        folder, _, _ = prefix.rpartition("/")
        start = self._path(folder) if folder else self.root
        with self._errors(prefix):
            self._check_present()
            if start.is_dir():
                yield from (key for key in _walk(start, f"{folder}/" if folder else "") if key.startswith(prefix))

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._errors(key):
            if path.is_file():
                path.unlink(missing_ok=True)

    def presign(self, key: str, seconds: int) -> str:
        return self._path(key).absolute().as_uri()

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _check_present(self) -> None:
        """Raises StorageAway where the root is gone (a disk that is not mounted): its objects are not missing but away."""
        if not (self.root / SCRATCH).is_dir():
            raise StorageAway(f"the storage folder {self.root} is gone (is its disk mounted?)")

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            self._check_present()
            raise BadObject(f"there is no object {key!r} in {self.root}") from error
        except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
            raise BadObject(
                f"{key!r} in {self.root} stands where another object has its folder, or the other way round"
            ) from error
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            what = "is full" if full else "cannot be used"
            raise StorageAway(f"the storage {self.root} {what}: {error.strerror} (object {key!r})") from error


def _write_all(path: Path, data: Data) -> None:
    with path.open("wb") as file:
        file.write(data)


def _sweep(scratch: Path, older_than_seconds: float = 86_400) -> None:
    """Remove what killed writers left behind."""
    for path in scratch.iterdir():
        try:
            if time.time() - path.stat().st_mtime > older_than_seconds:
                path.unlink()
        except FileNotFoundError:  # another process swept it
            continue


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    """Keys below a folder in the order of their bytes: a folder sorts with the slash that follows it."""
    try:
        entries = [(entry.name + "/" * entry.is_dir(), entry) for entry in os.scandir(folder)]
    except FileNotFoundError:
        return
    for name, entry in sorted(entries, key=lambda pair: os.fsencode(pair[0])):
        if name.endswith("/"):
            if prefix + name != f"{SCRATCH}/":
                yield from _walk(Path(entry.path), prefix + name)
        else:
            yield prefix + name
