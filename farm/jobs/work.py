"""What a worker has to know of the row it holds, read in one query, and the crop batches it may adopt from an earlier scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from farm.db.models import CropBatchRow, Scan, ScanPath, ScanVideo, Video, WorkState
from farm.db.session import database_errors
from farm.farm import Farm
from farm.jobs.claim import Lease
from farm.jobs.record import StoredBatch, record_split_batches

ADOPTED_AT_ONCE = 500
"""Batches per transaction."""


@dataclass(frozen=True, slots=True)
class SplitWork:
    """A video to split."""

    scan_video_id: int
    video_id: int
    sha256: str
    object_key: str
    #: one of the names it was submitted under
    name: str
    recipe: dict[str, Any]
    recipe_sha256: str

    def crops_key(self, position: int) -> str:
        """Key of the object with the crops of one batch; the same bytes and recipe give the same key in every scan."""
        return f"crops/{self.sha256}/{self.recipe_sha256}/{position:06d}"


@dataclass(frozen=True, slots=True)
class ScoreWork:
    """A crop batch to score."""

    batch_id: int
    scan_id: int
    scan_video_id: int
    position: int
    crops_key: str
    model_id: int
    engine: str

    def mask_key(self, model: str) -> str:
        """Key of the object with this batch's masks by this model (name-version)."""
        return f"masks/{self.scan_id}/{self.scan_video_id}/{self.position:06d}/{model}"


@dataclass(frozen=True, slots=True)
class Adoptable:
    """An ended split of the same bytes with the same recipe, in another scan."""

    scan_video_id: int
    summary: dict[str, Any]
    #: its batches in order
    batches: tuple[StoredBatch, ...]


def split_work(farm: Farm, lease: Lease) -> SplitWork:
    """What there is to split under this lease."""
    name = select(func.min(ScanPath.name)).where(ScanPath.scan_video_id == ScanVideo.id).scalar_subquery()
    columns = (
        ScanVideo.id,
        ScanVideo.video_id,
        Video.sha256,
        Video.object_key,
        func.coalesce(name, "?"),
        Scan.recipe,
        Scan.recipe_sha256,
    )
    query = select(*columns).join(Video, Video.id == ScanVideo.video_id).join(Scan, Scan.id == ScanVideo.scan_id)
    with database_errors(), farm.sessions() as session:
        return SplitWork(*session.execute(query.where(ScanVideo.id == lease.row_id)).one())


def score_work(farm: Farm, lease: Lease) -> ScoreWork:
    """What there is to score under this lease."""
    batch = CropBatchRow
    columns = (
        batch.id,
        batch.scan_id,
        batch.scan_video_id,
        batch.position,
        batch.object_key,
        Scan.model_id,
        Scan.engine,
    )
    with database_errors(), farm.sessions() as session:
        return ScoreWork(
            *session.execute(
                select(*columns).join(Scan, Scan.id == batch.scan_id).where(batch.id == lease.row_id)
            ).one()
        )


def adoptable(farm: Farm, work: SplitWork) -> Adoptable | None:
    """An earlier split whose crops serve this video too, if their objects are all still there."""
    ended = (
        select(ScanVideo.id, ScanVideo.summary, ScanVideo.batches_total)
        .join(Scan, Scan.id == ScanVideo.scan_id)
        .where(
            ScanVideo.video_id == work.video_id,
            ScanVideo.id != work.scan_video_id,
            ScanVideo.state == WorkState.DONE,
            ScanVideo.batches_total.is_not(None),
            Scan.recipe_sha256 == work.recipe_sha256,
        )
        .order_by(ScanVideo.id.desc())
        .limit(1)
    )
    with database_errors(), farm.sessions() as session:
        row = session.execute(ended).one_or_none()
        if row is None or row.summary is None:
            return None
        columns = (CropBatchRow.position, CropBatchRow.crops, CropBatchRow.object_key)
        of_it = select(*columns).where(CropBatchRow.scan_video_id == row.id).order_by(CropBatchRow.position)
        batches = tuple(StoredBatch(*found) for found in session.execute(of_it))
    if len(batches) != row.batches_total or not all(farm.store.exists(batch.object_key) for batch in batches):
        return None
    return Adoptable(row.id, row.summary, batches)


def adopt(farm: Farm, lease: Lease, found: Adoptable) -> None:
    """Give the leased video the batches of the earlier split, ready to score. Raises LeaseLost where it was taken over."""
    for start in range(0, len(found.batches), ADOPTED_AT_ONCE):
        record_split_batches(farm, lease, found.batches[start : start + ADOPTED_AT_ONCE])
