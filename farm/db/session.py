"""How the farm reaches its database: engine, sessions, the database's clock, migrations, and errors in the farm's own words.

Two databases are supported: SQLite in WAL mode for one machine, PostgreSQL for a farm.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Double, Engine, create_engine, event, exc, make_url
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session, SessionTransactionOrigin, sessionmaker
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from farm.errors import BadInput, DatabaseAway, SchemaBehind

if TYPE_CHECKING:
    from alembic.config import Config

BUSY_SECONDS = 30
"""How long a SQLite writer waits for another one before the database counts as away."""

MIGRATIONS = Path(__file__).parents[2] / "migrations"
"""Stands beside the package `farm`, in a checkout and in an installed tree alike."""

_DAMAGED = ("file is not a database", "database disk image is malformed")
"""How SQLite says so."""

ADVISORY_LOCK = 0x6661726D
"""PostgreSQL advisory lock held by whoever migrates ("farm" in ASCII)."""


class db_now(FunctionElement[float]):  # noqa: N801  used as an SQL function: now = db_now()
    """SQL expression: the database's clock in seconds since the epoch, constant within a statement. SQLite knows milliseconds."""

    type = Double()
    inherit_cache = True


@compiles(db_now, "sqlite")
def _sqlite_now(element: db_now, compiler: SQLCompiler, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(db_now, "postgresql")
def _postgresql_now(element: db_now, compiler: SQLCompiler, **options: Any) -> str:
    # clock_timestamp() would be read anew for every row, and being volatile keep a comparison with it from using an index
    return "CAST(extract(epoch FROM statement_timestamp()) AS DOUBLE PRECISION)"


class FarmSession(Session):
    """A session that on SQLite takes the write lock at the start of a transaction opened by `begin()`.

    A transaction that merely began with its first read takes no lock, so a long read never holds a writer up. Read-then-write in such
    a transaction may find the database changed in between and fail: write inside `begin()`.
    """

    def __init__(self, *args: Any, writer: Engine | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._writer = writer

    def get_bind(self, *args: Any, **options: Any) -> Engine | Connection:
        transaction = self.get_transaction()
        if self._writer is not None and transaction and transaction.origin is SessionTransactionOrigin.BEGIN:
            return self._writer
        return super().get_bind(*args, **options)


def open_engine(url: str) -> Engine:
    """An engine for `sqlite:///file` or `postgresql://...`; connects at the first use. Raises BadInput.

    Keeps at most two idle connections per process, and none across a fork.
    """
    where = database_url(url)
    if where.get_backend_name() == "sqlite":
        engine = create_engine(where, pool_size=2, max_overflow=-1, connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        patience = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
        engine = create_engine(
            where, pool_size=2, max_overflow=8, pool_pre_ping=True, pool_recycle=1800, connect_args=patience
        )
    _drop_idle_connections_at_fork(engine)
    return engine


def database_url(url: str) -> URL:
    """Parse a database URL and choose its driver. Raises BadInput for a database that the farm does not support."""
    try:
        where = make_url(url)
    except exc.ArgumentError as error:
        raise BadInput(
            f"{url!r} is no database URL: expected sqlite:///file or postgresql://user@host/database"
        ) from error
    if where.drivername in ("postgres", "postgresql"):
        where = where.set(drivername="postgresql+psycopg")
    if where.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise BadInput(f"database {where.drivername!r} is not supported: use sqlite or postgresql")
    if where.get_backend_name() == "sqlite" and where.database in (None, "", ":memory:"):
        raise BadInput("a SQLite database of the farm is a file, since several processes share it: sqlite:///farm.db")
    return where


def sessions(engine: Engine) -> sessionmaker[Session]:
    """The session factory. `with factory.begin() as session` writes; `with factory() as session` reads."""
    writer = engine.execution_options(sqlite_begin="BEGIN IMMEDIATE") if engine.dialect.name == "sqlite" else None
    return sessionmaker(engine, class_=FarmSession, expire_on_commit=False, writer=writer)


def _set_up_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # BEGIN is ours, see _begin_sqlite
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))


def _drop_idle_connections_at_fork(engine: Engine) -> None:
    """A forked child must not use its parent's connections: PostgreSQL's stream would mix, SQLite's locks be lost."""
    reference = weakref.ref(engine)

    def drop() -> None:
        engine = reference()
        if engine is not None:
            engine.dispose()

    os.register_at_fork(before=drop)


@contextmanager
def database_errors() -> Iterator[None]:
    """Say in the farm's words what a database failure inside the block means: DatabaseAway (retry), SchemaBehind or BadInput (do not)."""
    try:
        yield
    except exc.TimeoutError as error:
        raise DatabaseAway(f"no database connection became free: {error}") from error
    except exc.DBAPIError as error:
        if _misses_a_table(error):
            raise SchemaBehind(
                f"the database lacks a table or column: run `farm db upgrade` ({_first_line(error)})"
            ) from error
        if str(error.orig).startswith(_DAMAGED):
            raise BadInput(
                f"the database file is damaged ({_first_line(error)}): put a copy of it back, or begin a new farm"
            ) from error
        if isinstance(error, exc.OperationalError | exc.InterfaceError) or error.connection_invalidated:
            raise DatabaseAway(f"the database did not answer: {_first_line(error)}") from error
        raise


def _misses_a_table(error: exc.DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None)
    return state in ("42P01", "42703") or str(error.orig).startswith(("no such table", "no such column"))


def _first_line(error: exc.DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring the database to this code's schema. Safe to call from several processes at once; does nothing on an up-to-date database.

    Raises DatabaseAway, or SchemaBehind where the database is newer than the code.
    """
    from alembic import command
    from alembic.util import CommandError

    with _migrating(engine) as config:
        try:
            command.upgrade(config, revision)
        except CommandError as error:
            raise SchemaBehind(f"this database cannot be migrated by this version of the farm: {error}") from error


def downgrade(engine: Engine, revision: str) -> None:
    """Take the database back to an older revision ("base" drops every table with its data). Raises DatabaseAway."""
    from alembic import command

    with _migrating(engine) as config:
        command.downgrade(config, revision)


@contextmanager
def _migrating(engine: Engine) -> Iterator[Config]:
    """A transaction that locks other migrators out, as Alembic's configuration for migrations/env.py."""
    options = {"sqlite_begin": "BEGIN IMMEDIATE"}
    with database_errors(), engine.connect().execution_options(**options) as connection:
        connection.detach()  # its settings are not for the pool
        sqlite = connection.dialect.name == "sqlite"
        if sqlite:
            # a table rebuilt by a batch migration must not drag its children along; settable only outside a transaction
            connection.connection.cursor().execute("PRAGMA foreign_keys = OFF")
        with connection.begin():
            if not sqlite:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")
            yield _alembic_config(connection)


def _alembic_config(connection: Connection | None = None) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def check_schema(engine: Engine) -> None:
    """Return if the database is at this code's schema. Raises SchemaBehind with the way out, or DatabaseAway."""
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_alembic_config())
    with database_errors(), engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    expected = scripts.get_current_head()
    if found == expected:
        return
    if found is None:
        raise SchemaBehind("the database holds no farm yet: run `farm db upgrade`")
    if found in {script.revision for script in scripts.walk_revisions()}:
        raise SchemaBehind(f"the database is at revision {found}, this farm needs {expected}: run `farm db upgrade`")
    raise SchemaBehind(
        f"the database is at revision {found}, which this version of the farm does not know: it was migrated by a newer one; "
        f"install that version here (its `farm db upgrade` knows the way)"
    )
