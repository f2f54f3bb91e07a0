"""The tables as Core sees them. Statements that run per row of work are built once and run without the ORM: building one anew and passing
it through a session costs several times what the database needs for it.

A statement's parameters must not be called like columns, so they say what they are for: `row_id`, `now_owner`.
"""

from __future__ import annotations

from typing import cast

from sqlalchemy import Table

from farm.db.models import (
    Base,
    CropBatchRow,
    FaceScore,
    Model,
    Scan,
    ScanPath,
    ScanVideo,
    Track,
    TrainingEpoch,
    TrainingJob,
    Video,
)


def table_of(entity: type[Base]) -> Table:
    """The table of this class."""
    return cast(Table, entity.__table__)


SCANS, VIDEOS, SCAN_VIDEOS, SCAN_PATHS = table_of(Scan), table_of(Video), table_of(ScanVideo), table_of(ScanPath)
CROP_BATCHES, FACE_SCORES, TRACKS, MODELS = (
    table_of(CropBatchRow),
    table_of(FaceScore),
    table_of(Track),
    table_of(Model),
)
TRAINING_JOBS, TRAINING_EPOCHS = table_of(TrainingJob), table_of(TrainingEpoch)
