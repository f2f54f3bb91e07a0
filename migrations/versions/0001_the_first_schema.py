"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite counts up an INTEGER key only


def upgrade() -> None:
    op.create_table(
        "datasets",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_datasets"),
        sa.UniqueConstraint("name", name="uq_datasets_name"),
    )
    op.create_table(
        "models",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("version", sa.String(length=60), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("card", sa.JSON(), nullable=False),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_models"),
        sa.UniqueConstraint("name", "version", name="uq_models_name_version"),
    )
    op.create_table(
        "videos",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("info", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_videos"),
        sa.UniqueConstraint("sha256", name="uq_videos_sha256"),
    )
    op.create_table(
        "scans",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("dataset_id", BIG_ID, nullable=True),
        sa.Column("model_id", BIG_ID, nullable=False),
        sa.Column("rescan_of", BIG_ID, nullable=True),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("engine", sa.String(length=40), nullable=False),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("recipe_sha256", sa.String(length=64), nullable=False),
        sa.Column("code_version", sa.String(length=80), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("videos_total", sa.Integer(), nullable=False),
        sa.Column("videos_done", sa.Integer(), nullable=False),
        sa.Column("crops_total", sa.BigInteger(), nullable=False),
        sa.Column("crops_done", sa.BigInteger(), nullable=False),
        sa.Column("videos_fake", sa.Integer(), nullable=False),
        sa.Column("videos_real", sa.Integer(), nullable=False),
        sa.Column("videos_uncertain", sa.Integer(), nullable=False),
        sa.Column("videos_no_face", sa.Integer(), nullable=False),
        sa.Column("videos_unreadable", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_scans_dataset_id"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_scans_model_id"),
        sa.ForeignKeyConstraint(["rescan_of"], ["scans.id"], name="fk_scans_rescan_of"),
        sa.PrimaryKeyConstraint("id", name="pk_scans"),
    )
    op.create_index("ix_scans_dataset_id", "scans", ["dataset_id"])
    op.create_index("ix_scans_state", "scans", ["state"])

    op.create_table(
        "scan_videos",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("scan_id", BIG_ID, nullable=False),
        sa.Column("video_id", BIG_ID, nullable=False),
        sa.Column("summary", sa.JSON(), nullable=True),
        sa.Column("batches_total", sa.Integer(), nullable=True),
        sa.Column("batches_done", sa.Integer(), nullable=False),
        sa.Column("batches_failed", sa.Integer(), nullable=False),
        sa.Column("crops_total", sa.Integer(), nullable=False),
        sa.Column("crops_done", sa.Integer(), nullable=False),
        sa.Column("verdict", sa.String(length=12), nullable=True),
        sa.Column("p_fake", sa.Double(), nullable=True),
        sa.Column("reasons", sa.JSON(), nullable=True),
        sa.Column("decided_at", sa.Double(), nullable=True),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.Column("ready_at", sa.Double(), nullable=False),
        sa.Column("rung_at", sa.Double(), nullable=False),
        sa.Column("lease_owner", sa.String(length=200), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["scan_id"], ["scans.id"], name="fk_scan_videos_scan_id"),
        sa.ForeignKeyConstraint(["video_id"], ["videos.id"], name="fk_scan_videos_video_id"),
        sa.PrimaryKeyConstraint("id", name="pk_scan_videos"),
        sa.UniqueConstraint("scan_id", "video_id", name="uq_scan_videos_scan_id_video_id"),
    )
    op.create_index("ix_scan_videos_verdict", "scan_videos", ["verdict"])
    op.create_index("ix_scan_videos_video_id", "scan_videos", ["video_id"])
    op.create_index("ix_scan_videos_work", "scan_videos", ["state", "rung_at", "scan_id"])

    op.create_table(
        "crop_batches",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("scan_id", BIG_ID, nullable=False),
        sa.Column("scan_video_id", BIG_ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("crops", sa.Integer(), nullable=False),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.Column("mask_key", sa.Text(), nullable=True),
        sa.Column("scored_by", sa.JSON(), nullable=True),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.Column("ready_at", sa.Double(), nullable=False),
        sa.Column("rung_at", sa.Double(), nullable=False),
        sa.Column("lease_owner", sa.String(length=200), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["scan_id"], ["scans.id"], name="fk_crop_batches_scan_id"),
        sa.ForeignKeyConstraint(["scan_video_id"], ["scan_videos.id"], name="fk_crop_batches_scan_video_id"),
        sa.PrimaryKeyConstraint("id", name="pk_crop_batches"),
        sa.UniqueConstraint("scan_video_id", "position", name="uq_crop_batches_scan_video_id_position"),
    )
    op.create_index("ix_crop_batches_work", "crop_batches", ["state", "rung_at", "scan_id"])

    op.create_table(
        "scan_paths",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("scan_id", BIG_ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scan_video_id", BIG_ID, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("label", sa.String(length=12), nullable=True),
        sa.Column("attributes", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["scan_id"], ["scans.id"], name="fk_scan_paths_scan_id"),
        sa.ForeignKeyConstraint(["scan_video_id"], ["scan_videos.id"], name="fk_scan_paths_scan_video_id"),
        sa.PrimaryKeyConstraint("id", name="pk_scan_paths"),
        sa.UniqueConstraint("scan_id", "position", name="uq_scan_paths_scan_id_position"),
    )
    op.create_index("ix_scan_paths_label", "scan_paths", ["label"])
    op.create_index("ix_scan_paths_scan_video_id", "scan_paths", ["scan_video_id"])

    op.create_table(
        "tracks",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("scan_video_id", BIG_ID, nullable=False),
        sa.Column("track", sa.Integer(), nullable=False),
        sa.Column("crops", sa.Integer(), nullable=False),
        sa.Column("logit_sum", sa.Double(), nullable=False),
        sa.Column("logit_max", sa.Double(), nullable=False),
        sa.Column("mask_area_sum", sa.Double(), nullable=False),
        sa.Column("first_pts_seconds", sa.Double(), nullable=False),
        sa.Column("last_pts_seconds", sa.Double(), nullable=False),
        sa.Column("p_fake", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["scan_video_id"], ["scan_videos.id"], name="fk_tracks_scan_video_id"),
        sa.PrimaryKeyConstraint("id", name="pk_tracks"),
        sa.UniqueConstraint("scan_video_id", "track", name="uq_tracks_scan_video_id_track"),
    )
    op.create_table(
        "face_scores",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("crop_batch_id", BIG_ID, nullable=False),
        sa.Column("scan_video_id", BIG_ID, nullable=False),
        sa.Column("row", sa.SmallInteger(), nullable=False),
        sa.Column("track", sa.Integer(), nullable=False),
        sa.Column("frame_index", sa.BigInteger(), nullable=False),
        sa.Column("pts_seconds", sa.Double(), nullable=False),
        sa.Column("x0", sa.Double(), nullable=False),
        sa.Column("y0", sa.Double(), nullable=False),
        sa.Column("x1", sa.Double(), nullable=False),
        sa.Column("y1", sa.Double(), nullable=False),
        sa.Column("crop_x0", sa.Double(), nullable=False),
        sa.Column("crop_y0", sa.Double(), nullable=False),
        sa.Column("crop_x1", sa.Double(), nullable=False),
        sa.Column("crop_y1", sa.Double(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("logit", sa.Double(), nullable=False),
        sa.Column("p_fake", sa.Double(), nullable=False),
        sa.Column("mask_area", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["crop_batch_id"], ["crop_batches.id"], name="fk_face_scores_crop_batch_id"),
        sa.ForeignKeyConstraint(["scan_video_id"], ["scan_videos.id"], name="fk_face_scores_scan_video_id"),
        sa.PrimaryKeyConstraint("id", name="pk_face_scores"),
        sa.UniqueConstraint("crop_batch_id", "row", name="uq_face_scores_crop_batch_id_row"),
    )
    op.create_index("ix_face_scores_scan_video_id", "face_scores", ["scan_video_id", "track"])


def downgrade() -> None:
    for table in (
        "face_scores",
        "tracks",
        "scan_paths",
        "crop_batches",
        "scan_videos",
        "scans",
        "videos",
        "models",
        "datasets",
    ):
        op.drop_table(table)
