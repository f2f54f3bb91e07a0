"""Fixtures shared by all tests: the real services, one of each per run, a fresh database or bucket per test."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TypeVar

import pytest
import services
from card_stand_in import stand_in_card, vart_model  # noqa: F401 -- fixtures
from host_stand_in import stand_in_host  # noqa: F401 -- fixture

T = TypeVar("T")
numbers = itertools.count()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--real-vart",
        metavar="CARD.json",
        help="run the engine suite on the real card that FARM_VART_* names, with this compiled model, instead of the stand-in",
    )


def pytest_configure() -> None:
    # A run that was started in the background ignores Ctrl-C, and every process that a test starts would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests measured stands at the end, from whichever process they ran in."""
    ended = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])]
    figures = [value for report in ended for name, value in report.user_properties if name == "figures"]
    if figures:
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(str(line) for line in figures))


@pytest.fixture(scope="session")
def service_stack() -> Iterator[ExitStack]:
    """Holds every running service until the run ends."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def mortal_stack() -> Iterator[ExitStack]:
    """Holds the services of one test, which may kill them."""
    with ExitStack() as stack:
        yield stack


def start(stack: ExitStack, service: Callable[[], AbstractContextManager[T]]) -> T:
    """Enter a service. Where it cannot run the test fails in CI and is skipped elsewhere."""
    try:
        return stack.enter_context(service())
    except services.ServiceMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(f"a service is missing in CI: {missing}")
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def shared_redis(service_stack: ExitStack) -> services.RedisServer:
    return start(service_stack, services.redis_server)


@pytest.fixture
def redis_server(shared_redis: services.RedisServer) -> services.RedisServer:
    """A real Redis, emptied before each test; `.url` is redis+socket://, `.socket` its path."""
    import redis

    with redis.Redis(unix_socket_path=str(shared_redis.socket)) as client:
        client.flushall()
    return shared_redis


@pytest.fixture(scope="session")
def postgres_server(service_stack: ExitStack) -> services.PostgresServer:
    """A real PostgreSQL with all its databases; most tests want `postgres_url`."""
    return start(service_stack, services.postgres_server)


@pytest.fixture
def postgres_url(postgres_server: services.PostgresServer) -> Iterator[str]:
    """SQLAlchemy URL of a database of this test alone, empty (no tables); dropped afterwards."""
    import psycopg

    name = f"farm_{next(numbers)}"
    address = {"host": str(postgres_server.socket_folder), "user": "postgres", "dbname": "postgres"}
    with psycopg.connect(**address, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield postgres_server.url(name)
    with psycopg.connect(**address, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """SQLAlchemy URL of an empty database, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'farm.db'}"
    return request.getfixturevalue("postgres_url")


@pytest.fixture(scope="session")
def s3_server(service_stack: ExitStack) -> services.S3Server:
    """A real S3 server with its keys in the environment, where boto3 looks for them."""
    server = start(service_stack, services.s3_server)
    patch = pytest.MonkeyPatch()
    service_stack.callback(patch.undo)
    patch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
    patch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
    patch.setenv("AWS_CONFIG_FILE", os.devnull)
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return server


@pytest.fixture
def s3_endpoint(s3_server: services.S3Server) -> str:
    """The URL of the real S3 server; set it as `FARM_S3_ENDPOINT_URL` or give it to `open_store`."""
    return s3_server.endpoint_url


@pytest.fixture
def s3_bucket(s3_endpoint: str) -> str:
    """An empty bucket of this test alone."""
    import boto3

    name = f"farm-{next(numbers)}"
    boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1").create_bucket(Bucket=name)
    return name


@pytest.fixture
def mortal_redis(mortal_stack: ExitStack) -> services.RedisServer:
    """A Redis of this test alone, to be killed by it: `.process.kill()`."""
    return start(mortal_stack, services.redis_server)


@pytest.fixture
def mortal_postgres(mortal_stack: ExitStack) -> services.PostgresServer:
    """A PostgreSQL of this test alone, to be killed by it (SIGQUIT, so that its children end too)."""
    return start(mortal_stack, services.postgres_server)
