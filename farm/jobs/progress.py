"""How far a scan has come, read from its own row: one cheap query however large the scan."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import bindparam, select

from farm.contracts import VerdictLabel
from farm.db.models import ScanState
from farm.errors import BadInput, DatabaseAway
from farm.farm import Farm
from farm.jobs.tables import SCANS

SHORTEST_POLL_SECONDS, LONGEST_POLL_SECONDS = 0.1, 0.5
"""Between two looks at a scan's row: at first, and after a while."""


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
    with farm.read() as connection:
        row = connection.execute(_COUNTERS, {"scan": scan_id}).one_or_none()
    if row is None:
        raise BadInput(f"there is no scan {scan_id}: `farm status` lists them")
    return Progress(scan_id, ScanState(row.state), *row[1:5], dict(zip(VerdictLabel, row[5:], strict=True)))


_COUNTERS = select(
    SCANS.c.state,
    SCANS.c.videos_total,
    SCANS.c.videos_done,
    SCANS.c.crops_total,
    SCANS.c.crops_done,
    SCANS.c.videos_fake,
    SCANS.c.videos_real,
    SCANS.c.videos_uncertain,
    SCANS.c.videos_no_face,
    SCANS.c.videos_unreadable,
).where(SCANS.c.id == bindparam("scan"))


def wait(
    farm: Farm,
    scan_id: int,
    on_progress: Callable[[Progress], None] | None = None,
    *,
    alive: Callable[[], None] | None = None,
) -> Progress:
    """Return when the scan has ended. `on_progress` hears every change; `alive` may raise where the farm cannot go on.

    Outages of SQL are waited out.
    """
    last, pause = None, SHORTEST_POLL_SECONDS
    while True:
        if alive is not None:
            alive()
        with suppress(DatabaseAway):
            now = progress(farm, scan_id)
            pause = min(pause * 1.3, LONGEST_POLL_SECONDS)
            if now != last and on_progress is not None:
                on_progress(now)
            if now.ended:
                return now
            last = now
        time.sleep(pause)


def unfinished(farm: Farm) -> list[int]:
    """Ids of the scans that have not ended, oldest first."""
    running = SCANS.c.state.in_((ScanState.ACTIVE, ScanState.SUBMITTING))
    with farm.read() as connection:
        return list(connection.execute(select(SCANS.c.id).where(running).order_by(SCANS.c.id)).scalars())
