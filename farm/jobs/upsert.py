"""INSERT with ON CONFLICT on either database: SQLAlchemy keeps it in the dialects."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Session


def insert_into(session: Session, table: type[DeclarativeBase]) -> Any:
    """An INSERT that offers `on_conflict_do_nothing` and `on_conflict_do_update` for this session's database."""
    return insert_for(session.get_bind().dialect.name, table)


def insert_for(dialect: str, table: type[DeclarativeBase] | Table) -> Any:
    """As `insert_into`, for a dialect by name."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
