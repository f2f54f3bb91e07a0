"""Accelerator cards and what their sensors said."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite counts up an INTEGER key only


def upgrade() -> None:
    op.create_table(
        "cards",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("bdf", sa.String(length=60), nullable=False),
        sa.Column("serial", sa.String(length=60), nullable=True),
        sa.Column("shell", sa.String(length=120), nullable=True),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("changed_at", sa.Double(), nullable=False),
        sa.Column("worker", sa.String(length=200), nullable=True),
        sa.Column("engine", sa.String(length=40), nullable=True),
        sa.Column("seen_at", sa.Double(), nullable=True),
        sa.Column("celsius", sa.Double(), nullable=True),
        sa.Column("watts", sa.Double(), nullable=True),
        sa.Column("sampled_at", sa.Double(), nullable=True),
        sa.Column("canary_at", sa.Double(), nullable=True),
        sa.Column("crops_done", sa.BigInteger(), nullable=False),
        sa.Column("losses", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_cards"),
        sa.UniqueConstraint("host", "bdf", name="uq_cards_host_bdf"),
    )
    op.create_index("ix_cards_serial", "cards", ["serial"])
    op.create_table(
        "card_samples",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("card_id", BIG_ID, nullable=False),
        sa.Column("sampled_at", sa.Double(), nullable=False),
        sa.Column("celsius", sa.Double(), nullable=True),
        sa.Column("watts", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["card_id"], ["cards.id"], name="fk_card_samples_card_id"),
        sa.PrimaryKeyConstraint("id", name="pk_card_samples"),
    )
    op.create_index("ix_card_samples_card_id", "card_samples", ["card_id", "sampled_at"])


def downgrade() -> None:
    op.drop_table("card_samples")
    op.drop_table("cards")
