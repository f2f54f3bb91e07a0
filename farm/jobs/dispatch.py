"""The dispatcher: finds rows that may be worked on, and rings for a small window of them, fair across scans.

It may be killed, doubled or late: rows it never rang for wait, rows it rang for twice are claimed once.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    Table,
    and_,
    bindparam,
    exists,
    func,
    literal,
    or_,
    select,
    update,
)

from farm.db.models import CropBatchRow, ScanState, ScanVideo, TrainingJob, WorkState
from farm.db.session import db_now
from farm.errors import DatabaseAway, QueueAway
from farm.farm import Farm
from farm.jobs.claim import Work
from farm.jobs.fail import bury_abandoned
from farm.jobs.tables import SCAN_PATHS, SCANS, TRAINING_JOBS, table_of
from farm.queue import (
    INFER_QUEUES,
    INFER_TASK,
    SPLIT_QUEUE,
    SPLIT_TASK,
    TRAIN_QUEUE,
    TRAIN_TASK,
    Doorbell,
    Ring,
    priority_step,
)

log = logging.getLogger(__name__)

EMPTY_RING_AGAIN_SECONDS = 2.0
"""Redis holds no message at all of a queue, yet rows were rung for: the messages are lost (FLUSHALL, a restart), ring again this soon."""

IDLE_SECONDS = 1.0
"""Longest pause between ticks while nothing is to be done."""

LOST_SECONDS = 1.0
"""How often rows are looked for whose message or whose worker was lost."""

SWEEP_SECONDS = 15.0
"""How often abandoned rows and messages of dead workers are looked for."""

NAME_CHARACTERS = 60

TRAINING_PRIORITY = 6


@dataclass(frozen=True, slots=True)
class _Bell:
    """One table of work and where its rows are rung."""

    work: Work
    queue: str
    task: str
    #: only rows of scans that ask for this engine; empty: of all
    engine: str = ""

    @property
    def of_engine(self) -> dict[str, str]:
        """Parameters of a statement that is about the rows of one engine."""
        return {"engine": self.engine} if self.engine else {}


_BELLS = (
    _Bell(ScanVideo, SPLIT_QUEUE, SPLIT_TASK),
    *(_Bell(CropBatchRow, queue, INFER_TASK, engine) for engine, queue in INFER_QUEUES.items()),
    _Bell(TrainingJob, TRAIN_QUEUE, TRAIN_TASK),
)


class Dispatcher:
    """Rings for rows. One per farm is enough; two do no harm."""

    def __init__(self, farm: Farm, doorbell: Doorbell) -> None:
        self._farm = farm
        self._doorbell = doorbell
        self._woken = threading.Event()
        self._stopped = False
        self._last_scan = {bell.queue: 0 for bell in _BELLS}
        self._looked_for_lost = {bell.queue: 0.0 for bell in _BELLS}
        self._swept_at = 0.0

    def tick(self) -> int:
        """Ring for every row that is due and fits the window; the number of messages sent. Raises DatabaseAway or QueueAway."""
        if time.monotonic() - self._swept_at > SWEEP_SECONDS:
            self._swept_at = time.monotonic()
            self.sweep()
        return sum(self._ring(bell, count) for bell, count in self._due())

    def run(self) -> None:
        """Tick until `stop`. Outages of SQL or Redis are waited out."""
        pause = self._farm.settings.dispatch_interval_seconds
        away = False
        while not self._stopped:
            try:
                busy = self.tick() > 0
                if away:
                    log.warning("SQL and Redis answer again")
                away = False
            except (DatabaseAway, QueueAway) as error:
                if not away:
                    log.warning("dispatcher waits: %s", error)
                away, busy = True, False
            shortest = self._farm.settings.dispatch_interval_seconds
            pause = shortest if busy else min(pause * 1.5, max(IDLE_SECONDS, shortest))
            if self._woken.wait(pause):
                pause = shortest
            self._woken.clear()

    def wake(self) -> None:
        """Tick now: rows were submitted."""
        self._woken.set()

    def stop(self) -> None:
        """End `run` after its current tick."""
        self._stopped = True
        self._woken.set()

    def sweep(self) -> None:
        """Fail rows whose last attempt died with its worker, and forget messages that dead workers left unacknowledged."""
        bury_abandoned(self._farm)
        for bell in _BELLS:
            held = self._doorbell.held_longer_than(bell.queue, self._farm.settings.lease_seconds, time.time())
            rows = {tag: _row_id(body) for tag, body in held.items()}
            alive = self._leased(bell.work, {row for row in rows.values() if row is not None})
            dead = [tag for tag, row in rows.items() if row not in alive]
            if dead:
                self._doorbell.forget(bell.queue, dead)

    def _due(self) -> list[tuple[_Bell, int]]:
        """The bells with room in their window, with the messages that Redis holds of each; of engines, those that a scan asks for."""
        counts, window = self._doorbell.count(), self._farm.settings.dispatch_window
        with self._farm.read() as connection:
            asked = set(connection.execute(_engines_asked_for()).scalars())
        heard = [bell for bell in _BELLS if not bell.engine or bell.engine in asked]
        return [(bell, counts[bell.queue]) for bell in heard if counts[bell.queue] < window]

    def _ring(self, bell: _Bell, held: int) -> int:
        room = self._farm.settings.dispatch_window - held
        with self._farm.read() as connection:
            chosen = self._choose(connection, bell, room, nothing_held=held == 0)
        if not chosen:
            return 0
        with self._farm.write() as connection:
            rings = _mark(connection, bell, chosen)
        try:
            self._doorbell.ring(rings)
        except QueueAway:
            with self._farm.write() as connection:
                _set_rung_at(connection, bell.work, list(chosen), 0.0)
            raise
        return len(rings)

    def _choose(self, connection: Connection, bell: _Bell, room: int, *, nothing_held: bool) -> dict[int, int]:
        """Row ids, with their priority, that get the room: lost ones first, then new ones in turns of one per scan."""
        chosen: dict[int, int] = {}
        if time.monotonic() - self._looked_for_lost[bell.queue] > LOST_SECONDS:
            self._looked_for_lost[bell.queue] = time.monotonic()
            chosen = self._lost(connection, bell, room, nothing_held=nothing_held)
        if bell.work is TrainingJob:
            jobs = connection.execute(_fresh_jobs(), {"room": max(0, room - len(chosen))}).scalars()
            return chosen | dict.fromkeys(jobs, TRAINING_PRIORITY)
        scans = connection.execute(_scans_with_fresh_rows(bell.work, bool(bell.engine)), bell.of_engine).all()
        for step in sorted({priority_step(scan.priority) for scan in scans}):
            ids = [scan.id for scan in scans if priority_step(scan.priority) == step]
            turns = self._take_turns(connection, bell, ids, room - len(chosen))
            chosen |= dict.fromkeys(turns, step)
        return chosen

    def _take_turns(self, connection: Connection, bell: _Bell, scan_ids: list[int], room: int) -> list[int]:
        """Up to `room` rows, one of each scan in turn, going on after the scan that came last the time before."""
        if room <= 0:
            return []
        last = self._last_scan[bell.queue]
        scan_ids = [i for i in scan_ids if i > last] + [i for i in scan_ids if i <= last]
        lines: list[tuple[int, list[int]]] = []
        for scan_id in scan_ids[:room]:
            line = connection.execute(_fresh_rows(bell.work), {"scan": scan_id, "room": room})
            lines.append((scan_id, list(line.scalars())))
        turns = [
            (scan_id, line[turn])
            for turn in range(max((len(line) for _, line in lines), default=0))
            for scan_id, line in lines
            if turn < len(line)
        ][:room]
        if turns:
            self._last_scan[bell.queue] = turns[-1][0]
        return [row_id for _, row_id in turns]

    def _lost(self, connection: Connection, bell: _Bell, room: int, *, nothing_held: bool) -> dict[int, int]:
        """Rows rung for long ago and still not claimed, and rows whose worker let the lease run out."""
        chosen = self._farm.settings
        again = chosen.ring_again_seconds
        patience: dict[str, Any] = {
            "unclaimed_for": min(again, EMPTY_RING_AGAIN_SECONDS) if nothing_held else again,
            "left_for": min(again, chosen.lease_seconds),
            "most_attempts": chosen.max_attempts,
            "room": room,
        }
        lost = connection.execute(_lost_rows(bell.work, bool(bell.engine)), patience | bell.of_engine)
        return {int(row.id): priority_step(row.priority) for row in lost}

    def _leased(self, work: Work, row_ids: set[int]) -> set[int]:
        """Those of the rows that a worker holds now."""
        if not row_ids:
            return set()
        table = table_of(work)
        held = select(table.c.id).where(
            table.c.id.in_(row_ids), table.c.state == WorkState.LEASED, table.c.lease_until >= db_now()
        )
        with self._farm.read() as connection:
            return set(connection.execute(held).scalars())


def _running(of_engine: bool) -> tuple[ColumnElement[bool], ...]:
    """Scans that are worked on; those of one engine, where the statement is given it as `engine`."""
    running = SCANS.c.state.in_((ScanState.SUBMITTING, ScanState.ACTIVE))
    return (running, SCANS.c.engine == bindparam("engine")) if of_engine else (running,)


def _fresh(table: Table) -> ColumnElement[bool]:
    """Ready, due, and never rung for since it became so."""
    return and_(table.c.state == WorkState.READY, table.c.rung_at == 0.0, table.c.ready_at <= db_now())


@cache
def _engines_asked_for() -> Any:
    return select(SCANS.c.engine).where(*_running(of_engine=False)).distinct()


@cache
def _scans_with_fresh_rows(work: Work, of_engine: bool) -> Any:
    table = table_of(work)
    some = exists().where(table.c.scan_id == SCANS.c.id, _fresh(table))
    return select(SCANS.c.id, SCANS.c.priority).where(*_running(of_engine), some).order_by(SCANS.c.id)


@cache
def _fresh_rows(work: Work) -> Any:
    table = table_of(work)
    mine = select(table.c.id).where(table.c.scan_id == bindparam("scan"), _fresh(table))
    return mine.order_by(table.c.id).limit(bindparam("room"))


@cache
def _fresh_jobs() -> Any:
    """Training jobs in the order of their submission; they belong to no scan."""
    jobs = TRAINING_JOBS
    return select(jobs.c.id).where(_fresh(jobs)).order_by(jobs.c.id).limit(bindparam("room"))


@cache
def _lost_rows(work: Work, of_engine: bool) -> Any:
    table, now = table_of(work), db_now()
    unclaimed = and_(
        table.c.state == WorkState.READY,
        table.c.rung_at > 0.0,
        table.c.rung_at < now - bindparam("unclaimed_for", type_=Double),
        table.c.ready_at <= now,
    )
    left = and_(
        table.c.state == WorkState.LEASED,
        table.c.lease_until < now,
        table.c.rung_at < now - bindparam("left_for", type_=Double),
        table.c.attempts < bindparam("most_attempts"),
    )
    if work is TrainingJob:
        of_jobs = select(table.c.id, literal(TRAINING_PRIORITY).label("priority"))
        return of_jobs.where(or_(unclaimed, left)).limit(bindparam("room"))
    lost = select(table.c.id, SCANS.c.priority).join(SCANS, SCANS.c.id == table.c.scan_id)
    return lost.where(*_running(of_engine), or_(unclaimed, left)).limit(bindparam("room"))


def _mark(connection: Connection, bell: _Bell, chosen: dict[int, int]) -> list[Ring]:
    """Note when these rows were rung for; the messages to send once that is committed."""
    _set_rung_at(connection, bell.work, list(chosen), db_now())
    shown = _shown(connection, bell.work, list(chosen))
    return [Ring(bell.task, bell.queue, row_id, step, shown[row_id]) for row_id, step in chosen.items()]


def _set_rung_at(connection: Connection, work: Work, row_ids: list[int], when: Any) -> None:
    table = table_of(work)
    connection.execute(update(table).where(table.c.id.in_(row_ids)).values(rung_at=when))


def _shown(connection: Connection, work: Work, row_ids: list[int]) -> dict[int, str]:
    """What Flower shows for these rows: the video's name, and which batch of it; the training job's name."""
    if work is TrainingJob:
        jobs = select(TRAINING_JOBS.c.id, TRAINING_JOBS.c.name).where(TRAINING_JOBS.c.id.in_(row_ids))
        return {
            int(row.id): f"{row.name[:NAME_CHARACTERS]!r}, training job {row.id}" for row in connection.execute(jobs)
        }
    return {int(row.id): _words(*row[1:]) for row in connection.execute(_names(work), {"rows": row_ids})}


@cache
def _names(work: Work) -> Any:
    table = table_of(work)
    video_id = table.c.id if work is ScanVideo else table.c.scan_video_id
    name = select(func.min(SCAN_PATHS.c.name)).where(SCAN_PATHS.c.scan_video_id == video_id).scalar_subquery()
    detail = (table.c.scan_id,) if work is ScanVideo else (table.c.scan_id, table.c.position, table.c.crops)
    return select(table.c.id, name, *detail).where(table.c.id.in_(bindparam("rows", expanding=True)))


def _words(name: str | None, scan_id: int, position: int | None = None, crops: int | None = None) -> str:
    name = name or "?"
    short = name if len(name) <= NAME_CHARACTERS else f"{name[: NAME_CHARACTERS - 1]}…"
    batch = "" if position is None else f", batch {position} of {crops} crops"
    return f"{short!r}, scan {scan_id}{batch}"


def _row_id(body: bytes) -> int | None:
    """The row that an unacknowledged message is about; None where it does not parse."""
    try:
        message = json.loads(body)[0]
        encoded = message["body"]
        if message["properties"].get("body_encoding") == "base64":
            from base64 import b64decode

            encoded = b64decode(encoded)
        return int(json.loads(encoded)[0][0])
    except (ValueError, KeyError, IndexError, TypeError):
        return None
