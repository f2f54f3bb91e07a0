"""How far a scan has come, read from its own row: one cheap query however large the scan."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import select

from farm.contracts import VerdictLabel
from farm.db.models import Scan, ScanState
from farm.db.session import database_errors
from farm.errors import BadInput, DatabaseAway
from farm.farm import Farm


@dataclass(frozen=True, slots=True)
class Progress:
    """A scan's counters at one moment."""

    scan_id: int
    state: ScanState
    #: distinct videos
    videos_total: int
    videos_done: int
    #: crops found so far, and scored so far
    crops_total: int
    crops_done: int
    #: distinct videos per verdict
    verdicts: dict[VerdictLabel, int]

    @property
    def ended(self) -> bool:
        """Nothing more will happen."""
        return self.state in (ScanState.DONE, ScanState.CANCELLED)


def progress(farm: Farm, scan_id: int) -> Progress:
    """Where the scan stands. Raises BadInput for an unknown scan, DatabaseAway."""
    counters = (Scan.videos_total, Scan.videos_done, Scan.crops_total, Scan.crops_done)
    verdicts = (Scan.videos_fake, Scan.videos_real, Scan.videos_uncertain, Scan.videos_no_face, Scan.videos_unreadable)
    with database_errors(), farm.sessions() as session:
        row = session.execute(select(Scan.state, *counters, *verdicts).where(Scan.id == scan_id)).one_or_none()
    if row is None:
        raise BadInput(f"there is no scan {scan_id}")
    return Progress(scan_id, ScanState(row.state), *row[1:5], dict(zip(VerdictLabel, row[5:], strict=True)))


def wait(
    farm: Farm,
    scan_id: int,
    on_progress: Callable[[Progress], None] | None = None,
    *,
    poll_seconds: float = 0.25,
    alive: Callable[[], None] | None = None,
) -> Progress:
    """Return when the scan has ended. `on_progress` hears every change; `alive` may raise where the farm cannot go on.

    Outages of SQL are waited out.
    """
    last = None
    while True:
        if alive is not None:
            alive()
        try:
            now = progress(farm, scan_id)
        except DatabaseAway:
            time.sleep(poll_seconds)
            continue
        if now != last and on_progress is not None:
            on_progress(now)
        if now.ended:
            return now
        last = now
        time.sleep(poll_seconds)


def unfinished(farm: Farm) -> list[int]:
    """Ids of the scans that have not ended, oldest first."""
    running = select(Scan.id).where(Scan.state.in_((ScanState.ACTIVE, ScanState.SUBMITTING))).order_by(Scan.id)
    with database_errors(), farm.sessions() as session:
        return list(session.execute(running).scalars())
