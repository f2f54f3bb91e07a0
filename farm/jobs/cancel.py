"""Cancel a scan: nothing of it starts any more, what is being worked on is dropped, what is decided stays."""

from __future__ import annotations

from sqlalchemy import update

from farm.db.models import CropBatchRow, Scan, ScanState, ScanVideo, WorkState
from farm.db.session import database_errors, db_now
from farm.errors import BadInput
from farm.farm import Farm


def cancel(farm: Farm, scan_id: int) -> bool:
    """Cancel the scan; False where it had ended already. Raises BadInput for an unknown scan.

    A worker in the middle of one of its rows finds its lease gone and stores nothing.
    """
    with database_errors(), farm.sessions.begin() as session:
        if session.get(Scan, scan_id) is None:
            raise BadInput(f"there is no scan {scan_id}: `farm status` lists them")
        ended = (
            update(Scan)
            .where(Scan.id == scan_id, Scan.state.in_((ScanState.SUBMITTING, ScanState.ACTIVE)))
            .values(state=ScanState.CANCELLED, finished_at=db_now())
            .returning(Scan.id)
            .execution_options(synchronize_session=False)
        )
        cancelled = session.execute(ended).scalar_one_or_none() is not None
    # one transaction per table: recorders lock a work row before its scan, and must not meet us the other way round
    for work in (ScanVideo, CropBatchRow):
        dropped = (
            update(work)
            .where(work.scan_id == scan_id, work.state.in_((WorkState.READY, WorkState.LEASED)))
            .values(state=WorkState.CANCELLED, lease_owner=None, lease_until=None)
            .execution_options(synchronize_session=False)
        )
        if cancelled:
            with database_errors(), farm.sessions.begin() as session:
                session.execute(dropped)
    return cancelled
