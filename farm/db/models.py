"""The tables. SQL is the truth: a row that is work carries its own state and lease; Redis only says "row N may be ready".

All times are seconds since the epoch in double precision, taken from the database's clock (`session.db_now`), never from a worker's.
Sums of scores are DOUBLE PRECISION: single precision flipped one verdict in 100,000.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
BigId = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """Root of every table."""

    metadata = MetaData(naming_convention=NAMING)


class WorkState(StrEnum):
    """Where a row of work stands."""

    READY = "ready"
    """May be claimed once `ready_at` has passed."""
    LEASED = "leased"
    """A worker holds it until `lease_until`; past that it may be claimed again."""
    DONE = "done"
    """Its effect is stored."""
    FAILED = "failed"
    """It ran out of attempts or can never work; `error` says why."""
    CANCELLED = "cancelled"
    """Its scan was cancelled before it was done."""


class ScanState(StrEnum):
    """Where a scan stands."""

    SUBMITTING = "submitting"
    """Paths are still being added; its rows are worked on already, but it cannot end yet."""
    ACTIVE = "active"
    DONE = "done"
    CANCELLED = "cancelled"


class ModelState(StrEnum):
    """Whether scans may take a network."""

    CANDIDATE = "candidate"
    """Registered: it scans when it is named."""
    PROMOTED = "promoted"
    """It also scans when none is named. One at most."""
    RETIRED = "retired"
    """No new scan may take it; what it found stays and names it."""


class CardState(StrEnum):
    """What a card may do; see farm/jobs/cards.py for the moves."""

    READY = "ready"
    """It takes work."""
    HOT = "hot"
    """Too warm: it takes no work until it has cooled down."""
    DRAINED = "drained"
    """Somebody told it to take no work."""
    QUARANTINED = "quarantined"
    """It answered wrongly or failed again and again; somebody has to look at it and resume it."""
    GONE = "gone"
    """It is no longer on the bus of its host."""


class Leased:
    """Columns of a row that is work; see farm/jobs/claim.py for the moves between states."""

    state: Mapped[str] = mapped_column(String(12), default=WorkState.READY)
    attempts: Mapped[int] = mapped_column(SmallInteger, default=0)
    #: not before this time (back-off after a failed attempt)
    ready_at: Mapped[float] = mapped_column(Double, default=0.0)
    #: the dispatcher rang for this row then; rung again when too long ago
    rung_at: Mapped[float] = mapped_column(Double, default=0.0)
    lease_owner: Mapped[str | None] = mapped_column(String(200))
    lease_until: Mapped[float | None] = mapped_column(Double)
    error: Mapped[str | None] = mapped_column(Text)


class Dataset(Base):
    """A named collection that scans are grouped by."""

    __tablename__ = "datasets"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    created_at: Mapped[float] = mapped_column(Double)


class Model(Base):
    """A registered network: its card as it was when registered."""

    __tablename__ = "models"
    __table_args__ = (
        UniqueConstraint("name", "version"),
        # whatever two promotions do at once, one network is promoted
        Index(
            "uq_models_promoted",
            "state",
            unique=True,
            sqlite_where=text("state = 'promoted'"),
            postgresql_where=text("state = 'promoted'"),
        ),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    version: Mapped[str] = mapped_column(String(60))
    sha256: Mapped[str] = mapped_column(String(64))
    card: Mapped[dict[str, Any]] = mapped_column(JSON)
    #: object key of the weights in the farm's storage
    object_key: Mapped[str] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(Double)
    state: Mapped[str] = mapped_column(String(12), default=ModelState.CANDIDATE, server_default=ModelState.CANDIDATE)
    #: who moved it into its state, and when; nobody did while it is as it was registered
    state_by: Mapped[str | None] = mapped_column(String(200))
    state_at: Mapped[float | None] = mapped_column(Double)


class Scan(Base):
    """One submission: many paths, one model, one policy. The counters are rollups kept in the transaction that changes them."""

    __tablename__ = "scans"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    dataset_id: Mapped[int | None] = mapped_column(ForeignKey("datasets.id"), index=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    #: the scan this one repeats with another model or policy
    rescan_of: Mapped[int | None] = mapped_column(ForeignKey("scans.id"))
    state: Mapped[str] = mapped_column(String(12), default=ScanState.ACTIVE, index=True)
    #: 0 (first) to 9 (last), one of Celery's Redis priority steps
    priority: Mapped[int] = mapped_column(SmallInteger, default=6)
    engine: Mapped[str] = mapped_column(String(40))
    #: the split recipe as JSON and its sha256 (sampling, detector, margin, quality floors)
    recipe: Mapped[dict[str, Any]] = mapped_column(JSON)
    recipe_sha256: Mapped[str] = mapped_column(String(64))
    code_version: Mapped[str] = mapped_column(String(80))
    created_at: Mapped[float] = mapped_column(Double)
    finished_at: Mapped[float | None] = mapped_column(Double)
    #: rollups over scan_videos (distinct contents); results count paths
    videos_total: Mapped[int] = mapped_column(Integer, default=0)
    videos_done: Mapped[int] = mapped_column(Integer, default=0)
    crops_total: Mapped[int] = mapped_column(BigInteger, default=0)
    crops_done: Mapped[int] = mapped_column(BigInteger, default=0)
    videos_fake: Mapped[int] = mapped_column(Integer, default=0)
    videos_real: Mapped[int] = mapped_column(Integer, default=0)
    videos_uncertain: Mapped[int] = mapped_column(Integer, default=0)
    videos_no_face: Mapped[int] = mapped_column(Integer, default=0)
    videos_unreadable: Mapped[int] = mapped_column(Integer, default=0)


class Video(Base):
    """Distinct bytes: stored once, decoded once per recipe, however many paths or scans name them."""

    __tablename__ = "videos"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    #: `videos/<sha256>` in the farm's storage
    object_key: Mapped[str] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(Double)
    #: filled by the first split: width, height, duration_seconds, frame_rate, codec
    info: Mapped[dict[str, Any] | None] = mapped_column(JSON)


class ScanVideo(Leased, Base):
    """One distinct video within one scan: the split's row of work, then the verdict."""

    __tablename__ = "scan_videos"
    __table_args__ = (
        UniqueConstraint("scan_id", "video_id"),
        Index("ix_scan_videos_work", "state", "rung_at", "scan_id"),
        Index("ix_scan_videos_video_id", "video_id"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    scan_id: Mapped[int] = mapped_column(ForeignKey("scans.id"))
    video_id: Mapped[int] = mapped_column(ForeignKey("videos.id"))
    #: what the split saw: frames_read, faces_found, tracks, rejected {reason: n}, notes [..], duration_seconds ...
    summary: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    batches_total: Mapped[int | None] = mapped_column(Integer)
    batches_done: Mapped[int] = mapped_column(Integer, default=0)
    batches_failed: Mapped[int] = mapped_column(Integer, default=0)
    crops_total: Mapped[int] = mapped_column(Integer, default=0)
    crops_done: Mapped[int] = mapped_column(Integer, default=0)
    #: the verdict, written once by the transaction that stored the last batch
    verdict: Mapped[str | None] = mapped_column(String(12), index=True)
    p_fake: Mapped[float | None] = mapped_column(Double)
    reasons: Mapped[list[str] | None] = mapped_column(JSON)
    decided_at: Mapped[float | None] = mapped_column(Double)


class ScanPath(Base):
    """One submitted path of one scan; several may name the same bytes. A path that could not be read has an error and no video."""

    __tablename__ = "scan_paths"
    __table_args__ = (UniqueConstraint("scan_id", "position"), Index("ix_scan_paths_scan_video_id", "scan_video_id"))
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    scan_id: Mapped[int] = mapped_column(ForeignKey("scans.id"))
    #: 0-based order of submission
    position: Mapped[int] = mapped_column(Integer)
    #: as submitted: a local path or s3:// URI
    path: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    scan_video_id: Mapped[int | None] = mapped_column(ForeignKey("scan_videos.id"))
    #: why the bytes could not be had (missing, no permission ...); the path's verdict is then UNREADABLE
    error: Mapped[str | None] = mapped_column(Text)
    #: FAKE or REAL where the manifest said so
    label: Mapped[str | None] = mapped_column(String(12), index=True)
    #: whatever else the manifest said of it (original, group ...)
    attributes: Mapped[dict[str, Any] | None] = mapped_column(JSON)


class CropBatchRow(Leased, Base):
    """One crop batch: the engine's row of work."""

    __tablename__ = "crop_batches"
    __table_args__ = (
        UniqueConstraint("scan_video_id", "position"),
        Index("ix_crop_batches_work", "state", "rung_at", "scan_id"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    scan_id: Mapped[int] = mapped_column(ForeignKey("scans.id"))
    scan_video_id: Mapped[int] = mapped_column(ForeignKey("scan_videos.id"))
    #: 0-based number within its video
    position: Mapped[int] = mapped_column(Integer)
    crops: Mapped[int] = mapped_column(Integer)
    #: object with the pixels; shared by scans of the same bytes with the same recipe
    object_key: Mapped[str] = mapped_column(Text)
    #: object with the masks, once done
    mask_key: Mapped[str | None] = mapped_column(Text)
    #: what scored it: engine name, device, precision, seconds
    scored_by: Mapped[dict[str, Any] | None] = mapped_column(JSON)


class FaceScore(Base):
    """One scored crop."""

    __tablename__ = "face_scores"
    __table_args__ = (
        UniqueConstraint("crop_batch_id", "row"),
        Index("ix_face_scores_scan_video_id", "scan_video_id", "track"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    crop_batch_id: Mapped[int] = mapped_column(ForeignKey("crop_batches.id"))
    scan_video_id: Mapped[int] = mapped_column(ForeignKey("scan_videos.id"))
    #: row in the batch's array
    row: Mapped[int] = mapped_column(SmallInteger)
    track: Mapped[int] = mapped_column(Integer)
    frame_index: Mapped[int] = mapped_column(BigInteger)
    pts_seconds: Mapped[float] = mapped_column(Double)
    #: the face's box, then the square that was cut, in source pixels
    x0: Mapped[float] = mapped_column(Double)
    y0: Mapped[float] = mapped_column(Double)
    x1: Mapped[float] = mapped_column(Double)
    y1: Mapped[float] = mapped_column(Double)
    crop_x0: Mapped[float] = mapped_column(Double)
    crop_y0: Mapped[float] = mapped_column(Double)
    crop_x1: Mapped[float] = mapped_column(Double)
    crop_y1: Mapped[float] = mapped_column(Double)
    confidence: Mapped[float] = mapped_column(Double)
    #: raw class logit, fake positive; p_fake its calibrated probability by the scan's model card
    logit: Mapped[float] = mapped_column(Double)
    p_fake: Mapped[float] = mapped_column(Double)
    mask_area: Mapped[float] = mapped_column(Double)


class Track(Base):
    """Rollup per track of one scanned video, kept in the transaction that stores its scores."""

    __tablename__ = "tracks"
    __table_args__ = (UniqueConstraint("scan_video_id", "track"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    scan_video_id: Mapped[int] = mapped_column(ForeignKey("scan_videos.id"))
    track: Mapped[int] = mapped_column(Integer)
    crops: Mapped[int] = mapped_column(Integer, default=0)
    logit_sum: Mapped[float] = mapped_column(Double, default=0.0)
    logit_max: Mapped[float] = mapped_column(Double)
    mask_area_sum: Mapped[float] = mapped_column(Double, default=0.0)
    first_pts_seconds: Mapped[float] = mapped_column(Double)
    last_pts_seconds: Mapped[float] = mapped_column(Double)
    #: calibrated track score, written with the verdict
    p_fake: Mapped[float | None] = mapped_column(Double)


class TrainingJob(Leased, Base):
    """One network to train: a row of work that belongs to no scan. Its pixels and checkpoints are objects, its figures rows."""

    __tablename__ = "training_jobs"
    __table_args__ = (Index("ix_training_jobs_work", "state", "rung_at"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    #: the trainer's TOML as submitted; the farm does not read its keys
    config: Mapped[str] = mapped_column(Text)
    #: digest of the uploaded copy per data set that the config names as dataset:NAME
    datasets: Mapped[dict[str, str]] = mapped_column(JSON)
    #: epochs done and wanted; wanted is known once the trainer says it
    epoch: Mapped[int] = mapped_column(Integer, default=0)
    epochs_total: Mapped[int | None] = mapped_column(Integer)
    #: pictures trained on so far
    images: Mapped[int] = mapped_column(BigInteger, default=0)
    #: figures of the last epoch
    metrics: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    #: objects from which another worker goes on, and the best so far
    checkpoint_key: Mapped[str | None] = mapped_column(Text)
    best_key: Mapped[str | None] = mapped_column(Text)
    #: the finished network, registered but not promoted
    model_id: Mapped[int | None] = mapped_column(ForeignKey("models.id"))
    #: where it was trained last, as asked of the worker (cuda:0)
    device: Mapped[str | None] = mapped_column(String(60))
    created_at: Mapped[float] = mapped_column(Double)
    finished_at: Mapped[float | None] = mapped_column(Double)


class TrainingEpoch(Base):
    """Figures of one epoch; an epoch that was trained again after a crash replaces its row."""

    __tablename__ = "training_epochs"
    __table_args__ = (UniqueConstraint("training_job_id", "epoch"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    training_job_id: Mapped[int] = mapped_column(ForeignKey("training_jobs.id"))
    #: 1-based
    epoch: Mapped[int] = mapped_column(Integer)
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON)
    recorded_at: Mapped[float] = mapped_column(Double)


class Card(Base):
    """One accelerator card of one host: what it may do, and how it was when its worker last looked."""

    __tablename__ = "cards"
    __table_args__ = (UniqueConstraint("host", "bdf"), Index("ix_cards_serial", "serial"))
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    #: PCI address (domain:bus:device.function), or the name of a card that is on no bus
    bdf: Mapped[str] = mapped_column(String(60))
    #: as the card tells it; None where it does not
    serial: Mapped[str | None] = mapped_column(String(60))
    #: the platform on the card (its VBNV)
    shell: Mapped[str | None] = mapped_column(String(120))
    state: Mapped[str] = mapped_column(String(12), default=CardState.READY)
    #: why it is in this state, and since when
    reason: Mapped[str | None] = mapped_column(Text)
    changed_at: Mapped[float] = mapped_column(Double)
    #: its worker's node, and when that was heard last; engine is what it runs
    worker: Mapped[str | None] = mapped_column(String(200))
    engine: Mapped[str | None] = mapped_column(String(40))
    seen_at: Mapped[float | None] = mapped_column(Double)
    #: the hottest sensor and the whole card's power, at sampled_at; None where the card does not tell
    celsius: Mapped[float | None] = mapped_column(Double)
    watts: Mapped[float | None] = mapped_column(Double)
    sampled_at: Mapped[float | None] = mapped_column(Double)
    #: when the golden pictures were last answered rightly
    canary_at: Mapped[float | None] = mapped_column(Double)
    #: scored since the row was made, and times that the card's process was lost
    crops_done: Mapped[int] = mapped_column(BigInteger, default=0)
    losses: Mapped[int] = mapped_column(Integer, default=0)


class CardSample(Base):
    """One look at a card's sensors; old ones are deleted (FARM_CARD_SAMPLES_KEPT_SECONDS)."""

    __tablename__ = "card_samples"
    __table_args__ = (Index("ix_card_samples_card_id", "card_id", "sampled_at"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    card_id: Mapped[int] = mapped_column(ForeignKey("cards.id"))
    sampled_at: Mapped[float] = mapped_column(Double)
    celsius: Mapped[float | None] = mapped_column(Double)
    watts: Mapped[float | None] = mapped_column(Double)
