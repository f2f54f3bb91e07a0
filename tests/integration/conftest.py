"""A farm without its processes: a migrated database (SQLite and PostgreSQL), a folder of objects, a registered model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from farm_rows import Rows
from model_cards import write_card

from farm.db.session import open_engine, upgrade
from farm.farm import Farm
from farm.settings import Settings


@pytest.fixture
def card_path(tmp_path: Path) -> Path:
    """A model card with weights beside it; no engine but the simulated one would take them."""
    return write_card(tmp_path / "model", "test-net", b"no weights at all")


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite database to copy: migrating costs more than most tests."""
    path = tmp_path_factory.mktemp("schema") / "farm.db"
    engine = open_engine(f"sqlite:///{path}")
    upgrade(engine)
    engine.dispose()
    return path


@pytest.fixture
def farm_settings(database_url: str, tmp_path: Path, card_path: Path) -> Settings:
    """Settings of a farm whose times suit a test."""
    return Settings(
        database_url=database_url,
        storage_url=f"file://{tmp_path / 'objects'}",
        engine="simulated",
        model=str(card_path),
        retry_seconds=0.01,
        lease_seconds=30.0,
    )


@pytest.fixture
def farm(farm_settings: Settings, migrated_sqlite: Path) -> Iterator[Farm]:
    """A farm on either database; nothing of it runs."""
    url = farm_settings.database_url
    if url.startswith("sqlite:///"):
        shutil.copy(migrated_sqlite, url.removeprefix("sqlite:///"))
    opened = Farm.open(farm_settings)
    if not url.startswith("sqlite:///"):
        upgrade(opened.engine)
    yield opened
    opened.close()


@pytest.fixture
def impatient(farm: Farm) -> Callable[..., Farm]:
    """The same farm under other settings."""

    def changed(**settings: object) -> Farm:
        return replace(farm, settings=farm.settings.model_copy(update=settings))

    return changed


@pytest.fixture
def rows(farm: Farm) -> Rows:
    """Makes scans and reads what became of them."""
    return Rows(farm)


@pytest.fixture
def say(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Have a line of figures told at the end of the run; see `pytest_terminal_summary`."""
    return lambda line: record_property("figures", line)
