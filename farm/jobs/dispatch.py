"""The dispatcher: finds rows that may be worked on, and rings for a small window of them, fair across scans.

It may be killed, doubled or late: rows it never rang for wait, rows it rang for twice are claimed once.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, exists, func, or_, select, update
from sqlalchemy.orm import Session

from farm.db.models import CropBatchRow, Scan, ScanPath, ScanState, ScanVideo, WorkState
from farm.db.session import database_errors, db_now
from farm.errors import DatabaseAway, QueueAway
from farm.farm import Farm
from farm.jobs.claim import Work
from farm.jobs.fail import bury_abandoned
from farm.queue import INFER_QUEUE, INFER_TASK, SPLIT_QUEUE, SPLIT_TASK, Doorbell, Ring, priority_step

log = logging.getLogger(__name__)

EMPTY_RING_AGAIN_SECONDS = 2.0
"""Redis holds no message at all of a queue, yet rows were rung for: the messages are lost (FLUSHALL, a restart), ring again this soon."""

IDLE_SECONDS = 1.0
"""Longest pause between ticks while nothing is to be done."""

SWEEP_SECONDS = 15.0
"""How often abandoned rows and messages of dead workers are looked for."""

NAME_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class _Bell:
    """One table of work and where its rows are rung."""

    work: Work
    queue: str
    task: str


_BELLS = (_Bell(ScanVideo, SPLIT_QUEUE, SPLIT_TASK), _Bell(CropBatchRow, INFER_QUEUE, INFER_TASK))


class Dispatcher:
    """Rings for rows. One per farm is enough; two do no harm."""

    def __init__(self, farm: Farm, doorbell: Doorbell) -> None:
        self._farm = farm
        self._doorbell = doorbell
        self._woken = threading.Event()
        self._stopped = False
        self._last_scan = {bell.queue: 0 for bell in _BELLS}
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
            pause = shortest if busy else min(pause * 1.25, max(IDLE_SECONDS, shortest))
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
        """The bells with room in their window and rows to ring for, with the messages that Redis holds."""
        counts = self._doorbell.count()
        return [
            (bell, counts[bell.queue]) for bell in _BELLS if counts[bell.queue] < self._farm.settings.dispatch_window
        ]

    def _ring(self, bell: _Bell, held: int) -> int:
        room = self._farm.settings.dispatch_window - held
        with database_errors(), self._farm.sessions() as session:
            chosen = self._choose(session, bell, room, nothing_held=held == 0)
        if not chosen:
            return 0
        with database_errors(), self._farm.sessions.begin() as session:
            rings = self._mark(session, bell, chosen)
        try:
            self._doorbell.ring(rings)
        except QueueAway:
            with database_errors(), self._farm.sessions.begin() as session:
                _set_rung_at(session, bell.work, list(chosen), 0.0)
            raise
        return len(rings)

    def _choose(self, session: Session, bell: _Bell, room: int, *, nothing_held: bool) -> dict[int, int]:
        """Row ids, with their priority, that get the room: lost ones first, then new ones in turns of one per scan."""
        work = bell.work
        chosen = self._lost(session, bell, room, nothing_held=nothing_held)
        fresh = and_(
            work.scan_id == Scan.id, work.state == WorkState.READY, work.rung_at == 0.0, work.ready_at <= db_now()
        )
        running = Scan.state.in_((ScanState.SUBMITTING, ScanState.ACTIVE))
        scans = session.execute(
            select(Scan.id, Scan.priority).where(running, exists().where(fresh)).order_by(Scan.id)
        ).all()
        for step in sorted({priority_step(scan.priority) for scan in scans}):
            ids = [scan.id for scan in scans if priority_step(scan.priority) == step]
            turns = self._take_turns(session, bell, ids, room - len(chosen))
            chosen |= dict.fromkeys(turns, step)
        return chosen

    def _take_turns(self, session: Session, bell: _Bell, scan_ids: list[int], room: int) -> list[int]:
        """Up to `room` rows, one of each scan in turn, going on after the scan that came last the time before."""
        if room <= 0:
            return []
        work, last = bell.work, self._last_scan[bell.queue]
        scan_ids = [i for i in scan_ids if i > last] + [i for i in scan_ids if i <= last]
        lines: list[tuple[int, list[int]]] = []
        for scan_id in scan_ids[:room]:
            first = select(work.id).where(
                work.scan_id == scan_id, work.state == WorkState.READY, work.rung_at == 0.0, work.ready_at <= db_now()
            )
            lines.append((scan_id, list(session.execute(first.order_by(work.id).limit(room)).scalars())))
        turns = [
            (scan_id, line[turn])
            for turn in range(max((len(line) for _, line in lines), default=0))
            for scan_id, line in lines
            if turn < len(line)
        ][:room]
        if turns:
            self._last_scan[bell.queue] = turns[-1][0]
        return [row_id for _, row_id in turns]

    def _lost(self, session: Session, bell: _Bell, room: int, *, nothing_held: bool) -> dict[int, int]:
        """Rows rung for long ago and still not claimed, and rows whose worker let the lease run out."""
        work, now = bell.work, db_now()
        again = self._farm.settings.ring_again_seconds
        patience = min(again, EMPTY_RING_AGAIN_SECONDS) if nothing_held else again
        unclaimed = and_(
            work.state == WorkState.READY, work.rung_at > 0.0, work.rung_at < now - patience, work.ready_at <= now
        )
        left = and_(
            work.state == WorkState.LEASED,
            work.lease_until < now,
            work.rung_at < now - min(again, self._farm.settings.lease_seconds),
            work.attempts < self._farm.settings.max_attempts,
        )
        running = Scan.state.in_((ScanState.SUBMITTING, ScanState.ACTIVE))
        query = (
            select(work.id, Scan.priority)
            .join(Scan, Scan.id == work.scan_id)
            .where(running, or_(unclaimed, left))
            .limit(room)
        )
        return {int(row.id): priority_step(row.priority) for row in session.execute(query)}

    def _mark(self, session: Session, bell: _Bell, chosen: dict[int, int]) -> list[Ring]:
        """Note when these rows were rung for; the messages to send once that is committed."""
        _set_rung_at(session, bell.work, list(chosen), db_now())
        shown = _shown(session, bell.work, list(chosen))
        return [Ring(bell.task, bell.queue, row_id, step, shown[row_id]) for row_id, step in chosen.items()]

    def _leased(self, work: Work, row_ids: set[int]) -> set[int]:
        """Those of the rows that a worker holds now."""
        if not row_ids:
            return set()
        held = select(work.id).where(work.id.in_(row_ids), work.state == WorkState.LEASED, work.lease_until >= db_now())
        with database_errors(), self._farm.sessions() as session:
            return set(session.execute(held).scalars())


def _set_rung_at(session: Session, work: Work, row_ids: list[int], when: Any) -> None:
    rung = update(work).where(work.id.in_(row_ids)).values(rung_at=when)
    session.execute(rung.execution_options(synchronize_session=False))


def _shown(session: Session, work: Work, row_ids: list[int]) -> dict[int, str]:
    """What Flower shows for these rows: the video's name, and which batch of it."""
    video_id = ScanVideo.id if work is ScanVideo else CropBatchRow.scan_video_id
    name = select(func.min(ScanPath.name)).where(ScanPath.scan_video_id == video_id).scalar_subquery()
    detail = (work.scan_id,) if work is ScanVideo else (CropBatchRow.scan_id, CropBatchRow.position, CropBatchRow.crops)
    rows = session.execute(select(work.id, name.label("name"), *detail).where(work.id.in_(row_ids)))
    return {int(row.id): _words(*row[1:]) for row in rows}


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
