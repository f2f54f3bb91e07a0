"""Submit a scan: bytes hashed and stored once, one row per distinct video and one per submitted path, in chunks.

A path that cannot be read becomes a row with its error; the others go on. Messages are not sent here: the dispatcher finds the rows.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from farm.contracts import ENGINE_NAMES
from farm.db.models import Dataset, Scan, ScanPath, ScanState, ScanVideo, Video
from farm.db.session import database_errors, db_now
from farm.errors import BadInput, FarmError, NothingToScan, Retryable
from farm.farm import Farm
from farm.jobs.cancel import cancel
from farm.jobs.models import find_model
from farm.jobs.settle import finish_scan
from farm.jobs.sources import Source, shown
from farm.jobs.upsert import insert_into
from farm.split import Recipe
from farm.storage import open_store

log = logging.getLogger(__name__)

CHUNK_PATHS = 500
CHUNK_SECONDS = 1.0
"""Rows are committed after so many paths or so long, so that work starts while a large submission still reads."""

DEFAULT_PRIORITY = 6


@dataclass(frozen=True, slots=True)
class _Stored:
    """A source whose bytes are in the store, or the reason why not."""

    source: Source
    sha256: str = ""
    size_bytes: int = 0
    error: str | None = None


def submit(
    farm: Farm,
    sources: Iterable[Source],
    *,
    dataset: str | None = None,
    model: str = "",
    engine: str = "",
    recipe: Recipe,
    priority: int = DEFAULT_PRIORITY,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Submit these sources as one scan and return its id. `on_progress` hears the number of paths stored so far.

    `model` is a name, name@version or card path ("" for the farm's setting), `engine` likewise; `priority` 0 (first) to 9. Raises BadInput
    for a wrong argument, StorageAway or DatabaseAway where the farm cannot take it; a scan cut short by that is cancelled.
    """
    if not 0 <= priority <= 9:
        raise BadInput(f"priority is {priority}, expected 0 (first) to 9 (last)")
    engine = engine or farm.settings.engine
    scan_id = open_scan(
        farm, find_model(farm, model or farm.settings.model), engine, recipe, dataset=dataset, priority=priority
    )
    try:
        position = 0
        for chunk in _chunks(_store(farm, source) for source in sources):
            _add(farm, scan_id, position, chunk)
            position += len(chunk)
            if on_progress:
                on_progress(position)
        if not position:
            raise NothingToScan("nothing to scan: no path was given")
    except BaseException:
        _abandon(farm, scan_id)
        raise
    close_submission(farm, scan_id)
    return scan_id


def open_scan(
    farm: Farm,
    model_id: int,
    engine: str,
    recipe: Recipe,
    *,
    dataset: str | None,
    priority: int,
    rescan_of: int | None = None,
) -> int:
    """A new scan without videos, still being submitted; its id. Raises BadInput for an engine that does not exist."""
    if engine not in ENGINE_NAMES:
        raise BadInput(f"there is no engine {engine!r}; there are {', '.join(ENGINE_NAMES)}")
    with database_errors(), farm.sessions.begin() as session:
        scan = insert(Scan).values(
            dataset_id=_dataset_id(session, dataset),
            model_id=model_id,
            rescan_of=rescan_of,
            state=ScanState.SUBMITTING,
            priority=priority,
            engine=engine,
            recipe=recipe.to_json(),
            recipe_sha256=recipe.sha256,
            code_version=code_version(),
            created_at=db_now(),
        )
        return int(session.execute(scan.returning(Scan.id)).scalar_one())


def close_submission(farm: Farm, scan_id: int) -> None:
    """Nothing more comes: the scan may end now, and ends at once where nothing is left to do."""
    with database_errors(), farm.sessions.begin() as session:
        session.execute(
            update(Scan)
            .where(Scan.id == scan_id, Scan.state == ScanState.SUBMITTING)
            .values(state=ScanState.ACTIVE)
            .execution_options(synchronize_session=False)
        )
        finish_scan(session.connection(), scan_id)


@cache
def code_version() -> str:
    """The version of this code, for the record of every scan."""
    try:
        return version("deepfake-farm")
    except PackageNotFoundError:
        return "not installed"


def _abandon(farm: Farm, scan_id: int) -> None:
    try:
        cancel(farm, scan_id)
    except FarmError as error:
        log.warning("scan %s stays open, its submission broken off: %s", scan_id, error)


def _dataset_id(session: Session, name: str | None) -> int | None:
    if not name:
        return None
    session.execute(insert_into(session, Dataset).values(name=name, created_at=db_now()).on_conflict_do_nothing())
    return int(session.execute(select(Dataset.id).where(Dataset.name == name)).scalar_one())


def _chunks(stored: Iterable[_Stored]) -> Iterator[list[_Stored]]:
    chunk: list[_Stored] = []
    started = time.monotonic()
    for one in stored:
        chunk.append(one)
        if len(chunk) >= CHUNK_PATHS or time.monotonic() - started > CHUNK_SECONDS:
            yield chunk
            chunk, started = [], time.monotonic()
    if chunk:
        yield chunk


def _store(farm: Farm, source: Source) -> _Stored:
    """Hash the bytes and store them unless they are known. An unreadable source is a result; a store that is away is raised."""
    if source.error is not None:
        return _Stored(source, error=source.error)
    try:
        with _local(source) as path:
            before = _regular(path)
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            farm.store.put_file(f"videos/{sha256}", path)
            if _changed(before, path.stat()):
                return _Stored(source, error="the file changed while it was read; submit it again when it is complete")
            return _Stored(source, sha256, before.st_size)
    except (OSError, ValueError) as error:
        return _Stored(source, error=f"cannot be read: {getattr(error, 'strerror', None) or error}")
    except BadInput as error:
        return _Stored(source, error=str(error))


def _changed(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)


def _regular(path: Path) -> os.stat_result:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise BadInput("is not a file" if not stat.S_ISDIR(found.st_mode) else "is a folder")
    return found


@contextmanager
def _local(source: Source) -> Iterator[Path]:
    """The source's bytes as a file on this machine."""
    if not source.path.startswith("s3://"):
        yield Path(source.path)
        return
    bucket, _, key = source.path.removeprefix("s3://").partition("/")
    try:
        fetched = open_store(f"s3://{bucket}").get_file(key)
        with fetched as path:
            yield path
    except Retryable:
        raise
    except FarmError as error:
        raise BadInput(f"{source.path} cannot be read: {error}") from error


def _add(farm: Farm, scan_id: int, position: int, chunk: list[_Stored]) -> None:
    """One transaction: the chunk's videos, their rows of work, its paths, and the scan's total."""
    with database_errors(), farm.sessions.begin() as session:
        videos = _video_ids(session, [one for one in chunk if one.error is None])
        work = _scan_video_ids(session, scan_id, list(videos.values()))
        rows = [
            {
                "scan_id": scan_id,
                "position": position + i,
                "path": shown(one.source.path),
                "name": shown(one.source.name),
                "scan_video_id": None if one.error is not None else work[videos[one.sha256]],
                "error": one.error,
                "label": one.source.label,
                "attributes": one.source.attributes or None,
            }
            for i, one in enumerate(chunk)
        ]
        session.execute(insert(ScanPath), rows)
        total = select(func.count()).where(ScanVideo.scan_id == scan_id).scalar_subquery()
        session.execute(
            update(Scan)
            .where(Scan.id == scan_id)
            .values(videos_total=total)
            .execution_options(synchronize_session=False)
        )


def _video_ids(session: Session, stored: list[_Stored]) -> dict[str, int]:
    """Row id by sha256, new rows for bytes never seen; in order of sha256, so that two submitters cannot deadlock."""
    distinct = {one.sha256: one for one in stored}
    rows = [
        {"sha256": sha256, "size_bytes": one.size_bytes, "object_key": f"videos/{sha256}"}
        for sha256, one in sorted(distinct.items())
    ]
    if not rows:
        return {}
    session.execute(insert_into(session, Video).values(created_at=db_now()).on_conflict_do_nothing(), rows)
    found = session.execute(select(Video.sha256, Video.id).where(Video.sha256.in_(distinct)))
    return {row.sha256: int(row.id) for row in found}


def _scan_video_ids(session: Session, scan_id: int, video_ids: list[int]) -> dict[int, int]:
    """Row of work by video id, one per distinct video of the scan."""
    if not video_ids:
        return {}
    rows = [{"scan_id": scan_id, "video_id": video_id} for video_id in video_ids]
    session.execute(insert_into(session, ScanVideo).on_conflict_do_nothing(), rows)
    found = session.execute(
        select(ScanVideo.video_id, ScanVideo.id).where(ScanVideo.scan_id == scan_id, ScanVideo.video_id.in_(video_ids))
    )
    return {row.video_id: int(row.id) for row in found}
