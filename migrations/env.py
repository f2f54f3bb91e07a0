"""What Alembic runs for every command. `farm db upgrade` hands it a connection; `alembic revision` reads FARM_DATABASE_URL."""

from alembic import context
from sqlalchemy import Connection

from farm.db.models import Base
from farm.db.session import open_engine
from farm.settings import settings


def run(connection: Connection) -> None:
    # SQLite cannot alter most of a table: batch mode copies it instead
    context.configure(
        connection=connection, target_metadata=Base.metadata, render_as_batch=connection.dialect.name == "sqlite"
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with open_engine(settings().database_url).begin() as opened:
        run(opened)
