"""How many crops per second go through queue, storage and SQL when cards do the computing: 1, 2, 4 and 8 simulated cards on one machine.

    python -m bench.cards [--cards 1 2 4 8] [--seconds 12] [--database sqlite|postgresql] [--batch 64]

A simulated card takes the time that a VCK5000 takes (316.8 crops/s, int8, W=64) and burns no CPU; everything else is real: one worker
process per card (Celery on Redis, two threads: one fetches and stores while the other waits for its card), crop batches read from the
object store, masks written to it, scores and rollups in SQL, verdicts, the dispatcher's process. Before the clock starts the batches are
split already (from noise: the cards' scores mean nothing) and every worker answers. The rate is that of the middle of the run, when every
card has work. `farm_cpu_ms_per_crop` is what the farm's processes use meanwhile, `of_which` says which of them. Where other jobs have the
processors the rate falls while that stays; `cores_for_8_cards` (that, times 8 x 316.8 crops/s) says how many processors eight cards take.

What limited eight cards, by profile: the page faults of batches whose memory went back to the kernel (18 of 29 CPU-ms per batch; see
workers/memory.py). What limits them where other jobs have the processors is SQLite's write lock, whose holder is put aside: claims and
records then waited .2 s for it on average, 3 s at the 99th percentile. What a batch of 64 crops costs, of about 19 CPU-ms: Celery's loop 2
to 3, SQL 6, reading and checking the crops 4, masks 2, the stand-in's scores 2.
Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import func, insert, select, text

from bench.cpu_seconds import family, process_cpu_seconds
from farm.contracts import CROP_SIDE_PX, Box, Crop, CropBatch, FrameRef, ModelCard
from farm.db.models import CropBatchRow, Scan, ScanVideo, Video, WorkState
from farm.db.session import db_now, open_engine, upgrade
from farm.embedded import redis_binary
from farm.farm import Farm
from farm.jobs.models import register_model
from farm.jobs.progress import progress
from farm.jobs.submit import close_submission, open_scan
from farm.media.batches import encode_batch
from farm.queue import make_app
from farm.settings import Settings
from farm.split import Recipe

CARD_CROPS_PER_SECOND = 316.8
BATCHES_PER_VIDEO = 8
OBJECTS = 16
"""Different batch objects; the rows share them, so that a long run needs no disk for noise."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cards", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    chosen = parser.parse_args()
    rates: dict[str, float] = {}
    costs: dict[str, float] = {}
    for cards in chosen.cards:
        told = measure(cards, chosen.seconds, chosen.batch, chosen.database)
        rates[str(cards)], costs[str(cards)] = told["crops_per_second"], told["farm_cpu_ms_per_crop"]
        print(json.dumps(told), flush=True)
    result: dict[str, object] = {"crops_per_second": rates, "database": chosen.database, "batch": chosen.batch}
    result["farm_cpu_ms_per_crop"] = costs
    result["efficiency"] = {n: round(rate / (int(n) * CARD_CROPS_PER_SECOND), 4) for n, rate in rates.items()}
    if "8" in rates:
        result["efficiency_8"] = round(rates["8"] / (8 * CARD_CROPS_PER_SECOND), 4)
        result["cores_for_8_cards"] = round(costs["8"] / 1000 * 8 * CARD_CROPS_PER_SECOND, 3)
    result["processors"] = len(os.sched_getaffinity(0))
    print(json.dumps(result))


def measure(cards: int, seconds: float, batch: int, database: str) -> dict[str, Any]:
    """Start a farm of so many cards on work for about `seconds`, and watch how fast it goes."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farm-cards-", dir=_fast_folder())))
        redis = stack.enter_context(_redis(home))
        settings = Settings(
            database_url=stack.enter_context(_database(database, home)),
            redis_url=f"redis+socket://{home / 'redis.sock'}",
            storage_url=f"file://{home / 'objects'}",
            engine="simulated",
            simulated_crops_per_second=CARD_CROPS_PER_SECOND,
            model=str(_write_card(home / "model")),
            dispatch_window=max(64, 8 * cards),
            dispatch_interval_seconds=0.1,
        )
        farm = Farm.open(settings)
        stack.callback(farm.close)
        upgrade(farm.engine)
        scan_id = _prepare(farm, int(cards * CARD_CROPS_PER_SECOND * seconds / batch), batch)
        parts = {"redis": [redis.pid], "workers": []}
        for number in range(cards):
            parts["workers"].append(stack.enter_context(_worker(settings, f"simulated-{number}", home)).pid)
        _wait_for_workers(settings.redis_url, cards)
        parts["dispatcher"] = [
            stack.enter_context(_process(settings, ["-c", "from farm.cli import main; main()", "dispatch"], home)).pid
        ]
        return {"cards": cards, **_watch(farm, scan_id, parts)}


def _wait_for_workers(redis_url: str, cards: int) -> None:
    """Return once this many workers answer: what they cost while they start is not what is measured."""
    app = make_app(redis_url)
    deadline = time.monotonic() + 120
    while len(app.control.ping(timeout=1.0)) < cards:
        assert time.monotonic() < deadline, "the workers do not come up"
    app.close()


def _watch(farm: Farm, scan_id: int, parts: dict[str, list[int]]) -> dict[str, Any]:
    """The rate between a fifth and four fifths of the scan, and what processors were busy with meanwhile."""
    seen: list[tuple[float, int, float, dict[str, float]]] = []
    while True:
        now = progress(farm, scan_id)
        spent = {
            part: sum(process_cpu_seconds(each) for pid in pids for each in family(pid)) for part, pids in parts.items()
        }
        seen.append((time.monotonic(), now.crops_done, _busy_seconds(), spent))
        if now.ended:
            break
        time.sleep(0.25)
    middle = [moment for moment in seen if now.crops_total / 5 <= moment[1] <= now.crops_total * 4 / 5]
    (begin, first, idle, unspent), (end, last, busy, spent) = middle[0], middle[-1]
    cost = {part: (spent[part] - unspent[part]) * 1000 / (last - first) for part in parts}
    with farm.read() as connection:
        done = select(func.count()).select_from(CropBatchRow).where(CropBatchRow.state == WorkState.DONE)
        assert (
            connection.execute(done).scalar_one() * (now.crops_total // connection.execute(_all()).scalar_one())
            == now.crops_done
        )
    processors = len(os.sched_getaffinity(0))
    return {
        "crops_per_second": round((last - first) / (end - begin), 1),
        "crops": now.crops_done,
        "farm_cpu_ms_per_crop": round(sum(cost.values()), 3),
        "of_which": {part: round(each, 3) for part, each in cost.items()},
        "machine_busy": round((busy - idle) / (end - begin) / processors, 3),
    }


def _all() -> object:
    return select(func.count()).select_from(CropBatchRow)


def _busy_seconds() -> float:
    """CPU-seconds that the whole machine has been busy, whoever with, see proc(5)."""
    user, nice, system, idle, iowait, *rest = (int(word) for word in Path("/proc/stat").read_text().split()[1:9])
    del idle, iowait
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def _prepare(farm: Farm, batches: int, crops: int) -> int:
    """A scan whose videos are split and whose batches wait."""
    model_id = register_model(farm, Path(farm.settings.model))
    scan_id = open_scan(farm, model_id, "simulated", Recipe(), dataset=None, priority=6)
    noise = np.random.default_rng(1)
    cut = tuple(Crop(FrameRef(i, i / 25), Box(10, 10, 60, 70), Box(0, 0, 80, 80), i % 2, 0.9) for i in range(crops))
    for number in range(OBJECTS):
        pixels = noise.integers(0, 256, (crops, CROP_SIDE_PX, CROP_SIDE_PX, 3), dtype=np.uint8)
        farm.store.put(f"crops/noise/{number:06d}", encode_batch(CropBatch(number, pixels, cut)))
    videos = -(-batches // BATCHES_PER_VIDEO)
    with farm.sessions.begin() as session:
        common = {"size_bytes": 1, "object_key": "videos/noise"}
        rows = [{"sha256": f"noise-{number}", **common} for number in range(videos)]
        ids = session.scalars(insert(Video).values(created_at=db_now()).returning(Video.id), rows).all()
        split = {
            "scan_id": scan_id,
            "state": WorkState.DONE,
            "batches_total": BATCHES_PER_VIDEO,
            "summary": {"frames_read": 100},
        }
        split |= {"crops_total": BATCHES_PER_VIDEO * crops}
        made = session.scalars(insert(ScanVideo).returning(ScanVideo.id), [{"video_id": i, **split} for i in ids]).all()
        session.execute(
            insert(CropBatchRow),
            [
                {
                    "scan_id": scan_id,
                    "scan_video_id": video,
                    "position": n,
                    "crops": crops,
                    "object_key": f"crops/noise/{n % OBJECTS:06d}",
                }
                for video in made
                for n in range(BATCHES_PER_VIDEO)
            ],
        )
        scan = session.get_one(Scan, scan_id)
        scan.videos_total, scan.crops_total = videos, videos * BATCHES_PER_VIDEO * crops
    close_submission(farm, scan_id)
    return scan_id


def _write_card(folder: Path) -> Path:
    """A card for weights that no simulated engine looks at."""
    folder.mkdir()
    (folder / "none.onnx").write_bytes(b"none")
    values = {
        "name": "none",
        "version": "1",
        "weights": "none.onnx",
        "sha256": sha256(b"none").hexdigest(),
        "width": 64,
    }
    values |= {"input_name": "x", "class_output": "c", "mask_output": "m", "input_scale": 1.0, "input_offset": 0.0}
    values |= {"logit_polarity": "fake", "crop_margin": 0.15, "mask_threshold": 0.5, "temperature": 1.0, "bias": 0.0}
    values |= {"threshold": 0.9, "false_positive_rate": 0.01, "real_below": 0.1, "demonstration": True}
    path = folder / "none.json"
    path.write_text(json.dumps(values))
    ModelCard.load(path)
    return path


def _worker(settings: Settings, card: str, home: Path) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """One card's worker process."""
    return _process(settings, ["-m", "workers.app", "infer", "--loglevel", "WARNING"], home, FARM_CARD=card)


@contextmanager
def _process(settings: Settings, arguments: list[str], home: Path, **extra: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the farm that these settings name."""
    plain = {f"FARM_{name.upper()}": str(value) for name, value in settings.model_dump(exclude_none=True).items()}
    plain |= {"OPENBLAS_NUM_THREADS": "1", "FARM_FLOWER_PASSWORD": "", **extra}
    with (home / f"{extra.get('FARM_CARD', arguments[-1])}.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, *arguments], env={**os.environ, **plain}, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def _redis(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A private Redis on the socket `redis.sock`."""
    options = ["--port", "0", "--unixsocket", str(home / "redis.sock"), "--save", "", "--dir", str(home)]
    process = subprocess.Popen([str(redis_binary()), *options], stdout=subprocess.DEVNULL)
    try:
        while not (home / "redis.sock").exists():
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def _database(kind: str, home: Path) -> Iterator[str]:
    """A private PostgreSQL from its wheel (as the tests start it), or a SQLite file."""
    if kind == "sqlite":
        yield f"sqlite:///{home / 'farm.db'}"
        return
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from services import postgres_server

    with postgres_server() as server:
        engine = open_engine(server.url())
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("CREATE DATABASE cards"))
        engine.dispose()
        yield server.url("cards")


def _fast_folder() -> str | None:
    """Memory for the objects where there is room: a disk's speed is not what is measured."""
    shared = Path("/dev/shm")
    return str(shared) if shared.is_dir() and shutil.disk_usage(shared).free > 2 * 1024**3 else None


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    main()
