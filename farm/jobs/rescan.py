"""Scan the same paths again with another model, engine or recipe. Bytes are neither read nor stored again."""

from __future__ import annotations

from sqlalchemy import func, insert, literal, select, update
from sqlalchemy.orm import aliased

from farm.db.models import Dataset, Scan, ScanPath, ScanState, ScanVideo
from farm.db.session import database_errors
from farm.errors import BadInput
from farm.farm import Farm
from farm.jobs.models import check_choosable, find_model, load_model
from farm.jobs.recipe import recipe_again
from farm.jobs.submit import close_submission, open_scan


def rescan(
    farm: Farm, scan_id: int, *, model: str = "", engine: str = "", sampling: str = "", priority: int | None = None
) -> int:
    """A new scan of the same paths and its id; what is not given stays as it was. Crops are reused where the recipe comes out the same.

    Raises BadInput for an unknown scan or one that is still being submitted, and where the model is retired by now.
    """
    with database_errors(), farm.sessions() as session:
        old = session.get(Scan, scan_id)
        if old is None or old.state == ScanState.SUBMITTING:
            missing = f"there is no scan {scan_id}: `farm status` lists them"
            raise BadInput(missing if old is None else f"scan {scan_id} is still being submitted")
        dataset = session.execute(select(Dataset.name).where(Dataset.id == old.dataset_id)).scalar_one_or_none()
    other = find_model(farm, model) if model else None
    if other is None:
        check_choosable(load_model(farm, old.model_id))
    new_id = open_scan(
        farm,
        old.model_id if other is None else other,
        engine or old.engine,
        recipe_again(farm, old.recipe, model_id=other, sampling=sampling),
        dataset=dataset,
        priority=old.priority if priority is None else priority,
        rescan_of=scan_id,
    )
    _copy_rows(farm, scan_id, new_id)
    close_submission(farm, new_id)
    return new_id


def scanned_with(farm: Farm, scan_id: int) -> str:
    """name@version of a scan's model."""
    with database_errors(), farm.sessions() as session:
        return load_model(farm, session.get_one(Scan, scan_id).model_id).named


def _copy_rows(farm: Farm, old_id: int, new_id: int) -> None:
    old, new = aliased(ScanVideo), aliased(ScanVideo)
    videos = select(literal(new_id), ScanVideo.video_id).where(ScanVideo.scan_id == old_id)
    copied = (ScanPath.position, ScanPath.path, ScanPath.name, ScanPath.error, ScanPath.label, ScanPath.attributes)
    paths = (
        select(literal(new_id), new.id, *copied)
        .outerjoin(old, old.id == ScanPath.scan_video_id)
        .outerjoin(new, (new.video_id == old.video_id) & (new.scan_id == new_id))
        .where(ScanPath.scan_id == old_id)
    )
    total = select(func.count()).where(ScanVideo.scan_id == new_id).scalar_subquery()
    with database_errors(), farm.sessions.begin() as session:
        session.execute(insert(ScanVideo).from_select(["scan_id", "video_id"], videos))
        session.execute(
            insert(ScanPath).from_select(["scan_id", "scan_video_id", *(column.key for column in copied)], paths)
        )
        session.execute(
            update(Scan)
            .where(Scan.id == new_id)
            .values(videos_total=total)
            .execution_options(synchronize_session=False)
        )
