"""What a worker has to know of the row it holds, read in one query, and the crop batches it may adopt from an earlier scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, func, select

from farm.db.models import WorkState
from farm.farm import Farm
from farm.jobs.claim import Lease
from farm.jobs.record import StoredBatch, record_split_batches
from farm.jobs.tables import CROP_BATCHES, SCAN_PATHS, SCAN_VIDEOS, SCANS, VIDEOS

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
    with farm.read() as connection:
        return SplitWork(*connection.execute(_SPLIT_WORK, {"row_id": lease.row_id}).one())


def score_work(farm: Farm, lease: Lease) -> ScoreWork:
    """What there is to score under this lease."""
    with farm.read() as connection:
        return ScoreWork(*connection.execute(_SCORE_WORK, {"row_id": lease.row_id}).one())


def adoptable(farm: Farm, work: SplitWork) -> Adoptable | None:
    """An earlier split whose crops serve this video too, if their objects are all still there."""
    wanted = {"video": work.video_id, "not_this": work.scan_video_id, "recipe_sha": work.recipe_sha256}
    with farm.read() as connection:
        row = connection.execute(_EARLIER_SPLIT, wanted).one_or_none()
        if row is None or row.summary is None:
            return None
        batches = tuple(StoredBatch(*batch) for batch in connection.execute(_ITS_BATCHES, {"video": row.id}))
    if len(batches) != row.batches_total or not all(farm.store.exists(batch.object_key) for batch in batches):
        return None
    return Adoptable(row.id, row.summary, batches)


def adopt(farm: Farm, lease: Lease, found: Adoptable) -> None:
    """Give the leased video the batches of the earlier split, ready to score. Raises LeaseLost where it was taken over."""
    for start in range(0, len(found.batches), ADOPTED_AT_ONCE):
        record_split_batches(farm, lease, found.batches[start : start + ADOPTED_AT_ONCE])


_NAME = select(func.min(SCAN_PATHS.c.name)).where(SCAN_PATHS.c.scan_video_id == SCAN_VIDEOS.c.id).scalar_subquery()
_SPLIT_WORK = (
    select(
        SCAN_VIDEOS.c.id,
        SCAN_VIDEOS.c.video_id,
        VIDEOS.c.sha256,
        VIDEOS.c.object_key,
        func.coalesce(_NAME, "?"),
        SCANS.c.recipe,
        SCANS.c.recipe_sha256,
    )
    .join(VIDEOS, VIDEOS.c.id == SCAN_VIDEOS.c.video_id)
    .join(SCANS, SCANS.c.id == SCAN_VIDEOS.c.scan_id)
    .where(SCAN_VIDEOS.c.id == bindparam("row_id"))
)
_SCORE_WORK = (
    select(
        CROP_BATCHES.c.id,
        CROP_BATCHES.c.scan_id,
        CROP_BATCHES.c.scan_video_id,
        CROP_BATCHES.c.position,
        CROP_BATCHES.c.object_key,
        SCANS.c.model_id,
        SCANS.c.engine,
    )
    .join(SCANS, SCANS.c.id == CROP_BATCHES.c.scan_id)
    .where(CROP_BATCHES.c.id == bindparam("row_id"))
)
_EARLIER_SPLIT = (
    select(SCAN_VIDEOS.c.id, SCAN_VIDEOS.c.summary, SCAN_VIDEOS.c.batches_total)
    .join(SCANS, SCANS.c.id == SCAN_VIDEOS.c.scan_id)
    .where(
        SCAN_VIDEOS.c.video_id == bindparam("video"),
        SCAN_VIDEOS.c.id != bindparam("not_this"),
        SCAN_VIDEOS.c.state == WorkState.DONE,
        SCAN_VIDEOS.c.batches_total.is_not(None),
        SCANS.c.recipe_sha256 == bindparam("recipe_sha"),
    )
    .order_by(SCAN_VIDEOS.c.id.desc())
    .limit(1)
)
_ITS_BATCHES = (
    select(CROP_BATCHES.c.position, CROP_BATCHES.c.crops, CROP_BATCHES.c.object_key)
    .where(CROP_BATCHES.c.scan_video_id == bindparam("video"))
    .order_by(CROP_BATCHES.c.position)
)
