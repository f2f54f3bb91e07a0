"""What every use case needs: the settings, the database and the object store, opened together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session, sessionmaker

from farm.db.session import database_errors, open_engine, sessions
from farm.errors import BadInput
from farm.settings import Settings
from farm.storage import ObjectStore, open_store


@dataclass(frozen=True, slots=True)
class Farm:
    """One farm as seen from one process."""

    settings: Settings
    engine: Engine
    #: the same engine, whose transactions take SQLite's write lock at once, rather than fail where a reader turns writer
    writer: Engine
    sessions: sessionmaker[Session]
    store: ObjectStore

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Open the farm that these settings name. Raises BadInput where they name none; connects lazily."""
        if not settings.database_url or not settings.storage_url:
            raise BadInput(
                "no farm is configured: set FARM_DATABASE_URL and FARM_STORAGE_URL, or name an embedded farm with --home"
            )
        engine = open_engine(settings.database_url)
        store = open_store(settings.storage_url, endpoint_url=settings.s3_endpoint_url, region=settings.s3_region)
        # PostgreSQL does not know the option
        writer = engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")
        return cls(settings, engine, writer, sessions(engine), store)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction that writes, committed at the block's end. Raises DatabaseAway or SchemaBehind."""
        with database_errors(), self.writer.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One transaction that reads. Raises DatabaseAway or SchemaBehind."""
        with database_errors(), self.engine.connect() as connection:
            yield connection

    def close(self) -> None:
        """Give the database's connections back."""
        self.engine.dispose()
