"""Training jobs and their epochs."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite counts up an INTEGER key only


def upgrade() -> None:
    op.create_table(
        "training_jobs",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("datasets", sa.JSON(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("epochs_total", sa.Integer(), nullable=True),
        sa.Column("images", sa.BigInteger(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=True),
        sa.Column("checkpoint_key", sa.Text(), nullable=True),
        sa.Column("best_key", sa.Text(), nullable=True),
        sa.Column("model_id", BIG_ID, nullable=True),
        sa.Column("device", sa.String(length=60), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.Column("ready_at", sa.Double(), nullable=False),
        sa.Column("rung_at", sa.Double(), nullable=False),
        sa.Column("lease_owner", sa.String(length=200), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_training_jobs_model_id"),
        sa.PrimaryKeyConstraint("id", name="pk_training_jobs"),
    )
    op.create_index("ix_training_jobs_work", "training_jobs", ["state", "rung_at"])
    op.create_table(
        "training_epochs",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("training_job_id", BIG_ID, nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("recorded_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["training_job_id"], ["training_jobs.id"], name="fk_training_epochs_training_job_id"),
        sa.PrimaryKeyConstraint("id", name="pk_training_epochs"),
        sa.UniqueConstraint("training_job_id", "epoch", name="uq_training_epochs_training_job_id_epoch"),
    )


def downgrade() -> None:
    op.drop_table("training_epochs")
    op.drop_table("training_jobs")
