"""Networks are candidates, promoted or retired."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

PROMOTED = sa.text("state = 'promoted'")


def upgrade() -> None:
    with op.batch_alter_table("models") as models:
        models.add_column(sa.Column("state", sa.String(length=12), nullable=False, server_default="candidate"))
        models.add_column(sa.Column("state_by", sa.String(length=200), nullable=True))
        models.add_column(sa.Column("state_at", sa.Double(), nullable=True))
    op.create_index(
        "uq_models_promoted", "models", ["state"], unique=True, sqlite_where=PROMOTED, postgresql_where=PROMOTED
    )


def downgrade() -> None:
    op.drop_index("uq_models_promoted", "models")
    with op.batch_alter_table("models") as models:
        for name in ("state_at", "state_by", "state"):
            models.drop_column(name)
