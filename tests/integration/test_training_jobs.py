"""Training jobs on real workers, a real Redis, both databases: resumed after kill -9, cancelled, given back, failed with a reason."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from model_cards import model_card, write_card
from trainer_stand_in import write_stand_in

from farm.errors import BadInput
from farm.jobs.dispatch import Dispatcher
from farm.jobs.models import list_models, register_model
from farm.jobs.training.datasets import upload_dataset
from farm.jobs.training.look import training_job
from farm.jobs.training.submit import cancel_training, resume_training, submit_training
from farm.queue import Doorbell, make_app

ROOT = Path(__file__).parents[2]


@pytest.fixture
def prepared(tmp_path):
    """What counts as a prepared set for the stand-in."""
    folder = tmp_path / "faces"
    (folder / "crops").mkdir(parents=True)
    (folder / "manifest.parquet").write_bytes(b"rows")
    (folder / "crops" / "a.npy").write_bytes(b"pixels")
    return folder


@pytest.fixture
def site(impatient, redis_server, tmp_path):
    """A farm with a dispatcher and train workers that can be started and killed."""
    farm = impatient(
        redis_url=redis_server.url, lease_seconds=2.0, training_folder=str(tmp_path / "training"), training_device="cpu"
    )
    stand_in = write_stand_in(tmp_path / "stand-in", model_card(name="trained", weights="net.onnx").to_json())
    doorbell = Doorbell(make_app(redis_server.url))
    dispatcher = Dispatcher(farm, doorbell)
    thread = threading.Thread(target=dispatcher.run)
    thread.start()
    made = Site(farm, stand_in, tmp_path / "worker.log")
    yield made
    for worker in made.workers:
        worker.kill()
        worker.wait()
    dispatcher.stop()
    thread.join()
    doorbell.close()


class Site:
    def __init__(self, farm, stand_in, log):
        self.farm, self.stand_in, self.log, self.workers = farm, stand_in, log, []

    def start(self, **settings):
        plain = self.farm.settings.model_dump(exclude_none=True) | settings
        environment = {f"FARM_{name.upper()}": str(value) for name, value in plain.items()}
        environment |= {"PYTHONPATH": str(self.stand_in), "FARM_FLOWER_PASSWORD": ""}
        command = [sys.executable, "-W", "ignore", "-m", "workers.app", "train", "--device", "cpu"]
        with self.log.open("ab") as out:
            worker = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stdout=out, stderr=out)
        self.workers.append(worker)
        return worker

    def submit(self, prepared, start_from="", **config):
        values = {"epochs": 3, "seconds": 0.05, **config}
        text = "\n".join(f"{name} = {value!r}" for name, value in values.items())
        text += '\n[[data]]\nmanifest = "dataset:faces/manifest.parquet"\n'
        text += f'[run]\nstart_from = "model:{start_from}"\n' if start_from else ""
        digest = upload_dataset(self.farm.store, prepared)
        return submit_training(self.farm, "a job", text, {"faces": digest})

    def job(self, job_id):
        return training_job(self.farm, job_id)[0]

    def epochs(self, job_id):
        return training_job(self.farm, job_id)[1]

    def until(self, condition, seconds=120):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.02)


def test_a_job_is_trained_exported_evaluated_and_registered(site, prepared):
    site.start()
    job_id = site.submit(prepared)
    site.until(lambda: site.job(job_id).state not in ("ready", "leased"))

    job = site.job(job_id)
    assert (job.state, job.epoch, job.epochs_total, job.images) == ("done", 3, 3, 30)
    assert job.error is None and job.device == "cpu" and job.metrics["loss"] == pytest.approx(1 / 3)
    assert [each.epoch for each in site.epochs(job_id)] == [1, 2, 3]
    [model] = [model for model in list_models(site.farm) if model.named == job.model]
    assert (model.named, model.state) == ("trained@1", "candidate"), "a person promotes it"
    keys = list(site.farm.store.list(f"training/{job_id}/"))
    assert [key.partition("-")[0] for key in keys] == [
        f"training/{job_id}/{n}" for n in ("best", "last", "report/set/evaluation.json")
    ]
    assert json.loads(site.farm.store.get(f"training/{job_id}/report/set/evaluation.json")) == {"auc": 0.5}


def test_a_job_begins_with_a_registered_networks_weights_wherever_it_runs(site, prepared, tmp_path):
    with pytest.raises(BadInput, match="no model 'seen' is registered"):
        site.submit(prepared, start_from="seen")
    card = write_card(tmp_path / "seen", "seen", b"weights")
    register_model(site.farm, card)
    site.start()
    job_id = site.submit(prepared, start_from="seen", epochs=1)
    shutil.rmtree(card.parent)
    site.until(lambda: site.job(job_id).state not in ("ready", "leased"))

    assert (site.job(job_id).state, site.job(job_id).error) == ("done", None)
    assert site.epochs(job_id)[0].metrics["started"] is True


def test_after_kill_9_another_worker_goes_on_from_the_stored_checkpoint(site, prepared, tmp_path):
    """The other one shares no folder with the dead one: what it needs comes out of the object store."""
    first = site.start()
    job_id = site.submit(prepared, epochs=6, seconds=0.5)
    site.until(lambda: site.job(job_id).checkpoint_key is not None and site.job(job_id).epoch >= 2)
    [child] = children(first.pid)
    first.kill()
    first.wait()
    site.until(lambda: not alive(child), seconds=5)
    reached = site.job(job_id).epoch
    shutil.rmtree(tmp_path / "training")
    site.start(training_folder=str(tmp_path / "elsewhere"))
    site.until(lambda: site.job(job_id).state not in ("ready", "leased"))

    assert (site.job(job_id).state, site.job(job_id).epoch) == ("done", 6)
    epochs = site.epochs(job_id)
    assert [each.epoch for each in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].metrics["begun_at"] in (reached - 1, reached), "it went on where the stored checkpoint was"


def test_a_killed_trainer_costs_its_epoch_and_no_more(site, prepared):
    worker = site.start()
    job_id = site.submit(prepared, epochs=4, seconds=0.4)
    site.until(lambda: site.job(job_id).checkpoint_key is not None)
    [child] = children(worker.pid)
    os.kill(child, signal.SIGKILL)
    site.until(lambda: site.job(job_id).state not in ("ready", "leased"))

    assert site.job(job_id).state == "done"
    assert [each.epoch for each in site.epochs(job_id)] == [1, 2, 3, 4]
    assert site.epochs(job_id)[-1].metrics["begun_at"] >= 1


def test_a_cancelled_job_stops_its_trainer_and_keeps_its_epochs(site, prepared):
    worker = site.start()
    job_id = site.submit(prepared, epochs=500, seconds=0.1)
    site.until(lambda: site.job(job_id).epoch >= 1)
    [child] = children(worker.pid)
    assert cancel_training(site.farm, job_id)
    site.until(lambda: not alive(child), seconds=10)

    assert site.job(job_id).state == "cancelled" and not cancel_training(site.farm, job_id)
    assert worker.poll() is None and len(site.epochs(job_id)) >= 1


def test_a_worker_that_is_told_to_end_gives_its_job_back(site, prepared):
    worker = site.start()
    job_id = site.submit(prepared, epochs=500, seconds=0.1)
    site.until(lambda: site.job(job_id).epoch >= 1)
    worker.terminate()
    assert worker.wait(30) == 0, site.log.read_text()[-3000:]

    job = site.job(job_id)
    assert (job.state, job.attempts) == ("ready", 0) and job.checkpoint_key is not None


def test_a_bad_config_fails_at_once_with_the_trainers_words(site, prepared):
    site.start()
    job_id = site.submit(prepared, epoochs=3)
    site.until(lambda: site.job(job_id).state not in ("ready", "leased"))

    job = site.job(job_id)
    assert (job.state, job.error) == ("failed", "the config has an unknown key 'epoochs'")
    assert job.attempts == 1


def test_what_the_trainer_complains_of_fails_the_job_at_once_and_the_last_checkpoint_stays_to_go_on_from(
    site, prepared
):
    site.start()
    job_id = site.submit(prepared, epochs=3, fails_at=3)
    site.until(lambda: site.job(job_id).state not in ("ready", "leased"))

    job = site.job(job_id)
    assert (job.state, job.epoch, job.attempts) == ("failed", 2, 1)
    assert job.error == "the loss is no number any more | lower the learning rate"
    assert site.farm.store.get(job.checkpoint_key) == b"2 last.pt"

    assert resume_training(site.farm, job_id) and not resume_training(site.farm, job_id)
    site.until(lambda: site.job(job_id).state == "failed")
    assert site.job(job_id).checkpoint_key == job.checkpoint_key


def test_a_cancelled_job_can_be_resumed_from_where_it_was_and_a_done_one_not(site, prepared):
    site.start()
    job_id = site.submit(prepared, epochs=4, seconds=0.4)
    site.until(lambda: site.job(job_id).checkpoint_key is not None)
    cancel_training(site.farm, job_id)
    site.until(lambda: site.job(job_id).state == "cancelled")
    assert resume_training(site.farm, job_id)
    site.until(lambda: site.job(job_id).state not in ("ready", "leased"))

    assert site.job(job_id).state == "done" and site.epochs(job_id)[-1].metrics["begun_at"] >= 1
    with pytest.raises(BadInput, match="done already"):
        resume_training(site.farm, job_id)


def test_a_network_whose_version_stands_for_another_gets_one_of_its_own(site, prepared):
    site.start()
    jobs = [site.submit(prepared, epochs=epochs) for epochs in (1, 2)]
    for job_id in jobs:
        site.until(lambda job_id=job_id: site.job(job_id).state not in ("ready", "leased"))

    assert sorted(site.job(job_id).model for job_id in jobs) in (
        ["trained@1", f"trained@1-job{jobs[0]}"],
        ["trained@1", f"trained@1-job{jobs[1]}"],
    )


def children(pid):
    return [int(w) for task in Path(f"/proc/{pid}/task").iterdir() for w in (task / "children").read_text().split()]


def alive(pid):
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
