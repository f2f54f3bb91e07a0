"""Commands that train networks on the farm's train workers: submit, list, show, cancel, resume."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farm.cli.exits import EXIT_CODES
from farm.cli.options import AsJson, Home, opened_farm

if TYPE_CHECKING:
    from farm.farm import Farm
    from farm.jobs.training.look import TrainingStatus

train = typer.Typer(
    help="Train networks on GPU workers (`farm worker --queue train --device cuda:0`).", no_args_is_help=True
)

WaitOn = Annotated[
    str,
    typer.Option(
        "--wait-on", metavar="DEVICE", help="Train now, on this device, with an embedded farm in --home, and wait."
    ),
]
JobId = Annotated[int, typer.Argument(metavar="JOB", help="Number of the job, as `farm train list` shows it.", min=1)]


@train.command(epilog=EXIT_CODES)
def submit(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="TOML as `trainer train` takes it.", exists=True, dir_okay=False)
    ],
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset",
            metavar="DIR | NAME=DIR",
            help="Prepared data set to upload. The config names it as dataset:NAME, such as "
            '"dataset:NAME/manifest.parquet"; NAME is the folder\'s if left out. A start_from names a registered network as '
            '"model:NAME@VERSION". Other paths must be ones that workers see.',
        ),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="What to call the job. Default: the config's file name.")] = "",
    wait_on: WaitOn = "",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Queue a network to be trained. Data is uploaded once per content; a repeated upload sends only what is missing."""
    from farm.errors import BadInput
    from farm.jobs.training.datasets import upload_dataset
    from farm.jobs.training.submit import check_config, dataset_folders, submit_training

    try:
        text = config.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"the training config {config} is not UTF-8 text") from error
    folders = dataset_folders(dataset or [])
    check_config(text, folders)

    def handed_in(farm: Farm) -> tuple[int, dict[str, str]]:
        digests = {each: upload_dataset(farm.store, folder) for each, folder in folders.items()}
        return submit_training(farm, name or config.stem, text, digests), digests

    if wait_on:
        _train_here(home, wait_on, lambda farm: handed_in(farm)[0], as_json=as_json)
        return
    with opened_farm(home) as farm:
        job_id, digests = handed_in(farm)
    print(json.dumps({"job": job_id, "datasets": digests}) if as_json else _waits(job_id, home))


def _train_here(home: Path | None, device: str, hand_in: Callable[[Farm], int], *, as_json: bool) -> None:
    """Train on this machine. Raises BadInput where FARM_* names a farm, Fatal where the job did not end well."""
    from farm.cli.options import home_of
    from farm.embedded import EmbeddedFarm
    from farm.errors import BadInput, Fatal

    folder = home_of(home)
    if folder is None:
        raise BadInput(
            "--wait-on trains in an embedded farm: name its folder with --home, or leave the job to a worker"
        )
    with EmbeddedFarm(folder, training_device=device) as embedded:
        job_id = hand_in(embedded.farm)
        try:
            job = embedded.wait_training(job_id, _Teller())
        except KeyboardInterrupt:
            again = f"farm train resume {job_id} --wait-on {device} --home {folder}"
            print(f"\ninterrupted; what is stored is kept. Go on with: {again}", file=sys.stderr)
            raise
    if job.model is None:
        raise Fatal(f"training job {job.job} is {job.state}: {job.error or 'it was cancelled'}")
    print(
        json.dumps(asdict(job), ensure_ascii=False)
        if as_json
        else f"training job {job.job}: {job.model} is registered; `farm models promote {job.model} --home {folder}` lets scans take it"
    )


class _Teller:
    """A line on stderr whenever a job has come further."""

    def __init__(self) -> None:
        self._told: set[tuple[str, int]] = set()

    def __call__(self, job: TrainingStatus) -> None:
        if (job.state, job.epoch) not in self._told:
            self._told.add((job.state, job.epoch))
            line = _line(job)
            print(f"{job.state}: epoch {line['epoch']}, loss {line['loss'] or '?'}", file=sys.stderr, flush=True)


@train.command("list", epilog=EXIT_CODES)
def list_jobs(home: Home = None, as_json: AsJson = False) -> None:
    """The latest 50 training jobs, newest first."""
    from farm.cli.printing import console
    from farm.cli.tables import rows_table
    from farm.jobs.training.look import training_jobs

    with opened_farm(home) as farm:
        jobs = training_jobs(farm)
    if as_json:
        print(json.dumps([asdict(job) for job in jobs], ensure_ascii=False))
        return
    console().print(rows_table([_line(job) for job in jobs]) if jobs else "no training job yet")


@train.command(epilog=EXIT_CODES)
def show(job_id: JobId, home: Home = None, as_json: AsJson = False) -> None:
    """One training job and the figures of its epochs."""
    from farm.cli.printing import console
    from farm.cli.tables import rows_table
    from farm.jobs.training.look import training_job

    with opened_farm(home) as farm:
        job, epochs = training_job(farm, job_id)
    if as_json:
        print(json.dumps({**asdict(job), "history": [asdict(each) for each in epochs]}, ensure_ascii=False))
        return
    console().print(rows_table([_line(job)]))
    if job.error:
        print(job.error)
    if epochs:
        figures = list(dict.fromkeys(key for each in epochs for key in each.metrics))
        rows: list[dict[str, Any]] = [
            {"epoch": each.epoch} | {key: _figure(each.metrics.get(key)) for key in figures} for each in epochs
        ]
        console().print(rows_table(rows))


@train.command(epilog=EXIT_CODES)
def cancel(job_id: JobId, home: Home = None) -> None:
    """Cancel a training job. Its trainer stops within seconds; the last stored checkpoint stays."""
    from farm.jobs.training.submit import cancel_training

    with opened_farm(home) as farm:
        cancelled = cancel_training(farm, job_id)
    print(f"training job {job_id} " + ("is cancelled" if cancelled else "had ended already"), file=sys.stderr)


@train.command(epilog=EXIT_CODES)
def resume(job_id: JobId, wait_on: WaitOn = "", home: Home = None, as_json: AsJson = False) -> None:
    """Go on with a job that failed, was cancelled or interrupted, from its last stored checkpoint."""
    from farm.jobs.training.submit import resume_training

    def handed_in(farm: Farm) -> int:
        resume_training(farm, job_id)
        return job_id

    if wait_on:
        _train_here(home, wait_on, handed_in, as_json=as_json)
        return
    with opened_farm(home) as farm:
        handed_in(farm)
    print(json.dumps({"job": job_id}) if as_json else _waits(job_id, home))


def _waits(job_id: int, home: Path | None) -> str:
    """What a job that was only handed in waits for, and how to have it done."""
    from farm.cli.options import home_of

    worker = "`farm worker --queue train --device cuda:0` works on it"
    here = f"`farm train resume {job_id} --wait-on cpu --home {home_of(home)}` trains it here"
    return f"training job {job_id} waits for a train worker: {worker if home_of(home) is None else here}"


def _line(job: TrainingStatus) -> dict[str, Any]:
    epochs = f"{job.epoch} of {job.epochs_total}" if job.epochs_total else str(job.epoch)
    loss = _figure(job.metrics.get("loss"))
    shown = {"job": job.job, "name": job.name, "state": job.state, "epoch": epochs, "images": job.images, "loss": loss}
    return shown | {"device": job.device or "", "model": job.model or "", "error": (job.error or "").partition("\n")[0]}


def _figure(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
