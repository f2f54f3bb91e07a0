"""Train one leased network: data sets mirrored, the trainer run as a child, its epochs into SQL, its checkpoints into the object store.

Another worker can take the job over at any moment and goes on from the last stored checkpoint. Nothing here imports the trainer.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from farm.contracts import ModelCard
from farm.errors import BadInput, BadModel, DatabaseAway, StorageAway
from farm.farm import Farm
from farm.jobs.claim import Lease, release
from farm.jobs.hold import Hold
from farm.jobs.models import named_model, register_model, registered_sha256
from farm.jobs.training.datasets import fetch, mirror_dataset
from farm.jobs.training.record import (
    Epoch,
    TrainingWork,
    check_held,
    finish_training,
    record_checkpoint,
    record_epoch,
    training_work,
)
from farm.jobs.training.submit import models_in, resolved_config
from workers.attempt import patiently
from workers.trainer_process import TrainerDied, TrainerProcess, event_of

log = logging.getLogger(__name__)

Tell = Callable[[str], None]
LOOK_SECONDS = 2.0
"""How often a running job looks whether it was cancelled or its worker is to stop."""

KEPT = {"last.pt": "last", "best.pt": "best"}
"""Checkpoints that are stored, by the file's name in the run's folder; the trainer's other ones are its own."""

SUBMITTED = "submitted.toml"
"""The job's config in the run's folder, with the data sets where this worker has them."""

PLUMBING = frozenset({"event", "epoch", "epochs", "images", "file"})
"""Keys of an epoch event that are no figures."""

stopping = threading.Event()
"""Set when this worker was told to end: the trainer saves, the job goes back as if this attempt had not been."""


class WorkerStops(Exception):
    """This worker was told to end, and what its trainer saved is stored."""


def train_network(farm: Farm, lease: Lease, hold: Hold, tell: Tell) -> str:
    """Train, evaluate, export and register; one line that says what came of it.

    Raises BadInput with the trainer's own words, TrainerDied, StorageAway, BadObject, LeaseLost.
    """
    device = farm.settings.training_device
    work = patiently(farm, lambda: training_work(farm, lease, device))
    try:
        with _run_folder(farm, work) as run:
            job = _Job(farm, lease, hold, tell, run)
            model_id = _train(job, work, device)
    except WorkerStops:
        patiently(farm, lambda: release(farm, lease))
        return f"training job {work.job_id}: given back, its worker stops"
    patiently(farm, lambda: finish_training(farm, lease, model_id))
    return f"training job {work.job_id}: {work.name} trained and registered as model {model_id}"


def _train(job: _Job, work: TrainingWork, device: str) -> int:
    """From config and data to a registered network; its id."""
    config = job.run / SUBMITTED
    config.write_text(resolved_config(work.config, _mirrored(job, work), _fetched_models(job, work)))
    for key, name in ((work.checkpoint_key, "last.pt"), (work.best_key, "best.pt")):
        if key is not None:
            fetch(job.farm.store, key, job.run / name, Path(key).stem.rpartition("-")[2])
    job.run_trainer(["train", str(config), "--run", str(job.run), "--progress", "--device", device])
    return _registered(job)


def _registered(job: _Job) -> int:
    """Export and evaluate what was trained, store both, register the network; its id. A network is promoted by a person."""
    out, report, config = job.run / "export", job.run / "report", job.run / SUBMITTED
    # the best checkpoint may be another worker's and name its folders: the data sets are where this worker's config says
    job.run_trainer(["export", str(job.run), "--config", str(config), "--out", str(out), "--report", str(report)])
    cards = sorted(out.glob("*.json"))
    if len(cards) != 1:
        raise BadModel(f"trainer export left {len(cards)} model cards instead of one")
    for file in sorted(path for path in report.rglob("*") if path.is_file()):
        job.farm.store.put_file(f"{_objects(job.lease.row_id)}{file.relative_to(job.run).as_posix()}", file)
    _give_own_version(job, cards[0])
    return register_model(job.farm, cards[0])


def _give_own_version(job: _Job, path: Path) -> None:
    """Where the card's version stands for other weights, add the job's number to it: days of training shall not end on a name."""
    card = ModelCard.load(path)
    if registered_sha256(job.farm, card.name, card.version) in (None, card.sha256):
        return
    version = f"{card.version}-job{job.lease.row_id}"
    why = (
        f"Version {version}, since {card.name}@{card.version} stood for other weights when this network was registered."
    )
    path.write_text(replace(card, version=version, notes=(*card.notes, why)).to_json())
    log.warning("training job %s: %s", job.lease.row_id, why)


class _Job:
    """A leased job at work in its run folder."""

    def __init__(self, farm: Farm, lease: Lease, hold: Hold, tell: Tell, run: Path) -> None:
        self.farm, self.lease, self.hold, self.tell, self.run = farm, lease, hold, tell, run
        self._looked = 0.0

    def run_trainer(self, arguments: list[str]) -> list[str]:
        """Run one command of the trainer and store the events it tells; its other lines. Raises WorkerStops after it saved."""
        said: list[str] = []
        asked, finished = False, arguments[0] != "train"
        with TrainerProcess(arguments, self.run) as trainer:
            for line in trainer.lines(LOOK_SECONDS):
                event = None if line is None else event_of(line)
                if event is not None:
                    self._store(event)
                    finished = finished or event["event"] == "done"
                elif line is not None:
                    said.append(line)
                self.look()
                if stopping.is_set() and not asked:
                    asked = True
                    trainer.stop()
            if asked:
                raise WorkerStops
            trainer.ended()
        if not finished:
            raise TrainerDied("the trainer was stopped from outside before it was done")
        return said

    def look(self) -> None:
        """Raises LeaseLost where the job was cancelled or taken over."""
        self.hold.check()
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            with suppress(DatabaseAway):  # the lease says when that lasts too long
                check_held(self.farm, self.lease)

    def _store(self, event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            figures = {name: value for name, value in event.items() if name not in PLUMBING}
            told = Epoch(int(event["epoch"]), int(event["epochs"]), int(event["images"]), figures)
            patiently(self.farm, lambda: record_epoch(self.farm, self.lease, told))
            loss = f", loss {event['loss']:.4f}" if isinstance(event.get("loss"), float) else ""
            self.tell(f"epoch {told.epoch} of {told.epochs_total}{loss}")
        elif event["event"] == "begin":
            log.info("training job %s begins after epoch %s", self.lease.row_id, event["epoch"])
            self.tell(f"begins after epoch {event['epoch']} of {event['epochs']}")
        elif event["event"] == "checkpoint":
            self._store_checkpoint(self.run / str(event["file"]), int(event["epoch"]))

    def _store_checkpoint(self, file: Path, epoch: int) -> None:
        """Object first, row last, then the objects that the row names no more."""
        kind = KEPT.get(file.name)
        if kind is None:
            return
        key = put_checkpoint(self.farm, self.lease.row_id, file, kind, epoch)
        old = patiently(self.farm, lambda: record_checkpoint(self.farm, self.lease, **{kind: key}))
        for each in old:
            with suppress(StorageAway):  # tidied when the job is done
                self.farm.store.delete(each)


def put_checkpoint(farm: Farm, job_id: int, file: Path, kind: str, epoch: int) -> str:
    """Store a checkpoint under a key that carries its sha256; the key. Raises StorageAway, BadInput where the file is gone."""
    # a snapshot: the trainer may replace the file while it is being sent
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".sending-") as folder:
        snapshot = Path(folder) / file.name
        try:
            snapshot.hardlink_to(file)
            with snapshot.open("rb") as opened:
                sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise BadInput(f"the trainer's checkpoint {file} cannot be read: {error.strerror}") from error
        key = f"{_objects(job_id)}{kind}-{epoch:05d}-{sha256}.pt"
        farm.store.put_file(key, snapshot)
    return key


def _mirrored(job: _Job, work: TrainingWork) -> dict[str, Path]:
    """Folders of this worker's copies of the job's data sets, by name and called so: cards and reports name a set by its folder."""
    cache = _training_folder(job.farm) / "datasets"
    named = job.run / "data"
    named.mkdir()
    for name, digest in work.datasets.items():
        (named / name).symlink_to(mirror_dataset(job.farm.store, digest, cache, partial(_copied, job, name)).absolute())
    return {name: named / name for name in work.datasets}


def _fetched_models(job: _Job, work: TrainingWork) -> dict[str, Path]:
    """Cards of the registered models that the config names, by name@version, each with its weights beside it."""
    cards = {}
    for number, wanted in enumerate(models_in(work.config)):
        model = named_model(job.farm, wanted)
        folder = job.run / f"model-{number}"
        folder.mkdir()
        fetch(job.farm.store, model.object_key, folder / model.card.weights, model.card.sha256)
        cards[wanted] = folder / "card.json"
        cards[wanted].write_text(model.card.to_json())
    return cards


def _copied(job: _Job, name: str, done: int, files: int) -> None:
    """Told after each file of a data set. Raises WorkerStops, LeaseLost."""
    job.look()
    if stopping.is_set():
        raise WorkerStops
    if done == files or done % 100 == 0:
        job.tell(f"data set {name}: {done} of {files} files")


@contextmanager
def _run_folder(farm: Farm, work: TrainingWork) -> Iterator[Path]:
    """A folder of this attempt alone, gone afterwards: what matters of it is in the object store."""
    runs = _training_folder(farm) / "runs"
    try:
        runs.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"job-{work.job_id}-", dir=runs))
    except OSError as error:
        raise StorageAway(f"the training folder {runs} cannot be written: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _training_folder(farm: Farm) -> Path:
    chosen = farm.settings.training_folder
    return Path(chosen) if chosen else Path(tempfile.gettempdir()) / "farm-training"


def _objects(job_id: int) -> str:
    return f"training/{job_id}/"
