"""What the farm asks of its database, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import services
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, literal, select, text, update
from sqlalchemy.exc import IntegrityError

from farm.db.models import Base, Dataset
from farm.db.session import check_schema, database_errors, db_now, downgrade, open_engine, sessions, upgrade
from farm.errors import BadInput, DatabaseAway, SchemaBehind
from farm.jobs.upsert import insert_into


@pytest.fixture
def empty(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def engine(empty: Engine) -> Engine:
    upgrade(empty)
    return empty


def test_migrations_make_exactly_the_tables_of_the_models(engine: Engine) -> None:
    with engine.connect() as connection:
        differences = compare_metadata(
            MigrationContext.configure(connection, opts={"compare_type": True}), Base.metadata
        )
    assert differences == []


def test_upgrading_twice_changes_nothing_and_the_schema_then_fits(engine: Engine) -> None:
    upgrade(engine)
    check_schema(engine)


def test_downgrading_to_base_drops_every_table_of_the_farm(engine: Engine) -> None:
    downgrade(engine, "base")
    assert set(inspect(engine).get_table_names()) <= {"alembic_version"}
    upgrade(engine)
    check_schema(engine)


def test_two_processes_may_upgrade_at_once(empty: Engine) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: upgrade(empty), range(4)))
    check_schema(empty)


def test_an_empty_database_names_the_command_that_fills_it(empty: Engine) -> None:
    with pytest.raises(SchemaBehind, match="farm db upgrade"):
        check_schema(empty)


def test_a_database_behind_the_code_names_both_revisions_and_the_command(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptDirectory, "get_current_head", lambda self: "9999")
    with pytest.raises(SchemaBehind, match=r"revision \d{4},.*9999.*farm db upgrade"):
        check_schema(engine)


def test_a_database_ahead_of_the_code_says_that_the_farm_is_the_older_one(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'fffe'"))
    with pytest.raises(SchemaBehind, match=r"fffe.*newer"):
        check_schema(engine)
    with pytest.raises(SchemaBehind, match="cannot be migrated"):
        upgrade(engine)


def test_using_a_table_that_is_not_there_says_schema_behind(empty: Engine) -> None:
    with pytest.raises(SchemaBehind, match="farm db upgrade"), database_errors(), sessions(empty)() as session:
        session.scalars(select(Dataset)).all()


def test_the_databases_clock_is_the_epoch_with_parts_of_a_second(engine: Engine) -> None:
    with sessions(engine)() as session:
        first = session.scalar(select(db_now()))
        time.sleep(0.02)
        second = session.scalar(select(db_now()))
    assert isinstance(first, float)
    assert abs(first - time.time()) < 5
    assert 0.01 < second - first < 5


def test_the_clock_can_be_reckoned_with(engine: Engine) -> None:
    with sessions(engine)() as session:
        assert session.scalar(select(db_now() + 120.0 > db_now()))
        assert session.scalar(select(db_now() + literal(1.5) - db_now())) == pytest.approx(1.5, abs=0.01)


def test_a_transaction_that_fails_leaves_nothing(engine: Engine) -> None:
    factory = sessions(engine)

    def fail_after_writing() -> None:
        with factory.begin() as session:
            session.execute(insert_into(session, Dataset).values(name="half", created_at=0.0))
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail_after_writing()
    with factory() as session:
        assert session.scalars(select(Dataset)).all() == []


def test_foreign_keys_are_held(engine: Engine) -> None:
    with pytest.raises(IntegrityError), sessions(engine).begin() as session:
        session.execute(text("INSERT INTO tracks (scan_video_id, track, crops, logit_sum, logit_max, mask_area_sum,"
                             " first_pts_seconds, last_pts_seconds) VALUES (77, 0, 0, 0, 0, 0, 0, 0)"))  # fmt: skip


def test_inserting_a_row_that_exists_is_ignored_and_the_new_ones_are_told(engine: Engine) -> None:
    factory = sessions(engine)
    rows = [{"name": name, "created_at": 1.0} for name in ("a", "b")]
    with factory.begin() as session:
        session.execute(insert_into(session, Dataset).values(rows[:1]))
    with factory.begin() as session:
        statement = (
            insert_into(session, Dataset)
            .values(rows)
            .on_conflict_do_nothing(index_elements=["name"])
            .returning(Dataset.name)
        )
        assert session.scalars(statement).all() == ["b"]


def claim_all(factory, rounds: int) -> list[int]:
    """Claim whatever is unclaimed, the way a worker does; `created_at` 0 stands for ready."""
    won = []
    for row_id in range(1, rounds + 1):
        with factory.begin() as session:
            claimed = update(Dataset).where(Dataset.id == row_id, Dataset.created_at == 0).values(created_at=db_now())
            won += session.scalars(claimed.returning(Dataset.id)).all()
    return won


def add_rows(engine: Engine, count: int) -> None:
    with sessions(engine).begin() as session:
        session.add_all(Dataset(name=f"row {number}", created_at=0.0) for number in range(count))


def test_threads_that_race_for_rows_never_get_one_twice(engine: Engine) -> None:
    add_rows(engine, 40)
    factory = sessions(engine)
    with ThreadPoolExecutor(6) as pool:
        won = [row for part in pool.map(lambda _: claim_all(factory, 40), range(6)) for row in part]
    assert sorted(won) == list(range(1, 41))


def claim_in_process(url: str, out) -> None:
    engine = open_engine(url)
    out.put(claim_all(sessions(engine), 40))
    engine.dispose()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_processes_that_race_for_rows_never_get_one_twice(engine: Engine) -> None:
    add_rows(engine, 40)
    fork = multiprocessing.get_context("fork")
    out = fork.Queue()
    url = engine.url.render_as_string(hide_password=False)
    racers = [fork.Process(target=claim_in_process, args=(url, out)) for _ in range(3)]
    for racer in racers:
        racer.start()
    won = [row for _ in racers for row in out.get(timeout=60)]
    for racer in racers:
        racer.join()
    assert sorted(won) == list(range(1, 41))


def test_a_long_read_does_not_hold_a_writer_up(engine: Engine) -> None:
    add_rows(engine, 500)
    factory = sessions(engine)
    with factory() as reader:
        stream = iter(reader.scalars(select(Dataset.id).execution_options(yield_per=10)))
        next(stream)
        writer = threading.Thread(target=add_rows_named, args=(engine, "written meanwhile"), daemon=True)
        writer.start()
        writer.join(10)
        assert not writer.is_alive()
        assert len(list(stream)) == 499


def add_rows_named(engine: Engine, name: str) -> None:
    with sessions(engine).begin() as session:
        session.add(Dataset(name=name, created_at=0.0))


def test_read_then_write_in_one_transaction_waits_for_the_other_writer(engine: Engine) -> None:
    """Each adds one to what it read; on PostgreSQL the row is locked for it, on SQLite the transaction is alone."""
    add_rows(engine, 1)
    factory = sessions(engine)

    def count_up(_: int) -> None:
        with factory.begin() as session:
            row = session.scalars(select(Dataset).with_for_update()).one()
            row.created_at += 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count_up, range(20)))
    with factory() as session:
        assert session.scalar(select(Dataset.created_at)) == 20


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_takes_no_open_connection_along(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    assert engine.pool.checkedin() == 1
    child = os.fork()
    if child == 0:
        os._exit(engine.pool.checkedin())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_connection_that_postgresql_drops_in_mid_transaction_is_database_away(postgres_url: str) -> None:
    engine = open_engine(postgres_url)
    with pytest.raises(DatabaseAway), database_errors(), sessions(engine)() as session:
        session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    engine.dispose()


def test_a_connection_that_died_while_idle_is_replaced_unnoticed(postgres_url: str) -> None:
    engine, other = open_engine(postgres_url), open_engine(postgres_url)
    with sessions(engine)() as session:
        idle = session.scalar(text("SELECT pg_backend_pid()"))
    with other.connect() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:idle, 5000)"), {"idle": idle})
    with sessions(engine)() as session:
        assert session.scalar(text("SELECT pg_backend_pid()")) != idle
    engine.dispose()
    other.dispose()


def test_a_postgresql_that_was_killed_is_database_away(mortal_postgres: services.PostgresServer) -> None:
    engine = open_engine(mortal_postgres.url())
    upgrade(engine)
    mortal_postgres.process.send_signal(signal.SIGQUIT)
    mortal_postgres.process.wait(10)
    with pytest.raises(DatabaseAway, match="did not answer"), database_errors(), sessions(engine)() as session:
        session.scalar(select(db_now()))
    with pytest.raises(DatabaseAway):
        check_schema(engine)
    engine.dispose()


def test_a_sqlite_file_that_cannot_be_opened_is_database_away(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/missing/farm.db")
    with pytest.raises(DatabaseAway, match="unable to open"):
        check_schema(engine)


def test_a_sqlite_file_that_is_none_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "farm.db").write_bytes(b"no database at all, " * 300)
    engine = open_engine(f"sqlite:///{tmp_path / 'farm.db'}")
    for touch in (check_schema, upgrade):
        with pytest.raises(BadInput, match="file is not a database"):
            touch(engine)
    engine.dispose()


def test_a_sqlite_locked_for_too_long_is_database_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farm.db.session.BUSY_SECONDS", 0.05)
    engine = open_engine(f"sqlite:///{tmp_path}/farm.db")
    upgrade(engine)
    with sessions(engine).begin() as holder:
        holder.execute(select(Dataset))
        with pytest.raises(DatabaseAway, match="locked"), database_errors(), sessions(engine).begin() as session:
            session.execute(select(Dataset))
    engine.dispose()


def test_a_sqlite_whose_disk_is_full_is_database_away_and_works_again_with_room(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/farm.db")
    upgrade(engine)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 60")  # as if the disk ended there
    with pytest.raises(DatabaseAway, match="full"), database_errors():
        add_rows(engine, 20_000)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 100000")
    add_rows(engine, 1)
    with sessions(engine)() as session:
        assert len(session.scalars(select(Dataset.id)).all()) == 1
    engine.dispose()


def test_sqlite_survives_a_power_cut_by_its_write_ahead_log(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/farm.db")
    with engine.connect() as connection:
        found = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    engine.dispose()
    assert found == ["wal", 1, 1, 30_000]


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://root@host/farm", "sqlite://", "sqlite:///:memory:"])
def test_a_url_that_is_no_database_of_the_farm_is_bad_input(url: str) -> None:
    with pytest.raises(BadInput, match="sqlite"):
        open_engine(url)


@pytest.mark.parametrize("url", ["postgres://u@h/d", "postgresql://u@h/d", "postgresql+psycopg://u@h/d"])
def test_every_spelling_of_postgresql_runs_on_psycopg(url: str) -> None:
    assert open_engine(url).url.drivername == "postgresql+psycopg"
