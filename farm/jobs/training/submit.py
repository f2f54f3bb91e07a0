"""Hand a network in to be trained, and take that back."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select, update

from farm.db.models import WorkState
from farm.db.session import db_now
from farm.errors import BadInput
from farm.farm import Farm
from farm.jobs.claim import ENDED
from farm.jobs.models import named_model
from farm.jobs.tables import TRAINING_JOBS

DATASET = "dataset:"
"""A string of the config that begins so names an uploaded data set, and maybe a file in it: dataset:NAME or dataset:NAME/split.parquet."""

MODEL = "model:"
"""`start_from` that begins so names a registered network whose weights the training begins with: model:NAME@VERSION."""

_NAME = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9._-]+\Z")
_QUOTED = re.compile(r"""(["'])dataset:([A-Za-z0-9._-]+)((?:/[^"'\\\n]*)?)\1""")
_QUOTED_MODEL = re.compile(r"""(["'])model:([^"'\\\n]+)\1""")


def submit_training(farm: Farm, name: str, config: str, datasets: Mapping[str, str]) -> int:
    """Store the job, ready to be trained; its id. `datasets` are digests of uploaded sets by the names that the config uses.

    A `start_from` of model:NAME is stored as model:NAME@VERSION, the one it names now.
    Raises BadInput where the config is no TOML, where its data sets and the given ones differ, or where no model is called so.
    """
    check_config(config, datasets)
    config = _QUOTED_MODEL.sub(lambda found: json.dumps(MODEL + named_model(farm, found[2]).named), config)
    values = {"name": name[:200], "config": config, "datasets": dict(datasets), "state": WorkState.READY}
    counts = {"attempts": 0, "ready_at": 0.0, "rung_at": 0.0, "epoch": 0, "images": 0}
    with farm.write() as connection:
        row = insert(TRAINING_JOBS).values(**values, **counts, created_at=db_now()).returning(TRAINING_JOBS.c.id)
        return int(connection.execute(row).scalar_one())


def check_config(config: str, datasets: Mapping[str, Any]) -> None:
    """Raises BadInput unless the config is TOML that names exactly these data sets; its keys are the trainer's to judge."""
    try:
        parsed = tomllib.loads(config)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"the training config is no TOML: {error}") from error
    named = {text.removeprefix(DATASET).partition("/")[0] for text in _strings(parsed) if text.startswith(DATASET)}
    missing, idle = sorted(named - set(datasets)), sorted(set(datasets) - named)
    if missing:
        raise BadInput(
            f"the config names {DATASET}{missing[0]}, but no --dataset of that name is given "
            f"(the name is the folder's, or NAME=DIR): {', '.join(sorted(datasets)) or 'none'}"
        )
    if idle:
        raise BadInput(
            f'no path of the config begins with "{DATASET}{idle[0]}": name the data set there or leave it out'
        )
    run = parsed.get("run")
    start = run.get("start_from", "") if isinstance(run, dict) else ""
    if isinstance(start, str) and start and not start.startswith((MODEL, DATASET)) and not Path(start).is_absolute():
        raise BadInput(
            f"run.start_from is {start!r}, which no worker finds: register the card (`farm models register CARD`) and write "
            f'"{MODEL}NAME@VERSION", or give an absolute path that workers see'
        )
    if named != {name for _, name, _ in _QUOTED.findall(config)}:
        raise BadInput(
            f'write each {DATASET} path as one plain quoted string, such as "{DATASET}{min(named)}/manifest.parquet"'
        )


def models_in(config: str) -> list[str]:
    """NAME@VERSION of every registered model that the config names."""
    return [found[2] for found in _QUOTED_MODEL.finditer(config)]


def resolved_config(config: str, folders: Mapping[str, Path], cards: Mapping[str, Path]) -> str:
    """The config with every dataset:NAME and model:NAME@VERSION turned into the path of the worker's copy."""

    def path(found: re.Match[str]) -> str:
        return json.dumps(f"{folders[found[2]]}{found[3]}", ensure_ascii=False)

    config = _QUOTED_MODEL.sub(lambda found: json.dumps(str(cards[found[2]]), ensure_ascii=False), config)
    return _QUOTED.sub(lambda found: path(found) if found[2] in folders else found[0], config)


def dataset_folders(given: list[str]) -> dict[str, Path]:
    """Folders by name from `DIR` (named like the folder) and `NAME=DIR`. Raises BadInput for a bad or a doubled name."""
    folders: dict[str, Path] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        path = Path(folder if equals else text)
        name = name if equals else path.absolute().name
        if not _NAME.match(name):
            raise BadInput(f"{name!r} cannot name a data set: use letters, digits, '.', '_' and '-' (NAME=DIR)")
        if name in folders:
            raise BadInput(f"two data sets are called {name!r}: give one another name (NAME=DIR)")
        folders[name] = path
    return folders


def cancel_training(farm: Farm, job_id: int) -> bool:
    """Cancel the job; False where it had ended already. Raises BadInput for an unknown one.

    Its worker finds the lease gone within seconds and stops the trainer, which saves; the last stored checkpoint stays.
    """
    table = TRAINING_JOBS
    cancelled = (
        update(table)
        .where(table.c.id == job_id, table.c.state.in_((WorkState.READY, WorkState.LEASED)))
        .values(state=WorkState.CANCELLED, finished_at=db_now(), **ENDED)
        .returning(table.c.id)
    )
    with farm.write() as connection:
        if connection.execute(select(table.c.id).where(table.c.id == job_id)).one_or_none() is None:
            raise BadInput(f"there is no training job {job_id}")
        return connection.execute(cancelled).scalar_one_or_none() is not None


def resume_training(farm: Farm, job_id: int) -> bool:
    """Make a failed or cancelled job ready again, from its last stored checkpoint; False where it waits or is worked on anyway.

    Raises BadInput for an unknown job or one that is done.
    """
    table = TRAINING_JOBS
    counts = {"attempts": 0, "ready_at": 0.0, "rung_at": 0.0}
    resumed = (
        update(table)
        .where(table.c.id == job_id, table.c.state.in_((WorkState.FAILED, WorkState.CANCELLED)))
        .values(state=WorkState.READY, finished_at=None, error=None, **counts, **ENDED)
        .returning(table.c.id)
    )
    with farm.write() as connection:
        state = connection.execute(select(table.c.state).where(table.c.id == job_id)).scalar_one_or_none()
        if state is None or state == WorkState.DONE:
            said = f"there is no training job {job_id}" if state is None else f"training job {job_id} is done already"
            raise BadInput(said)
        return connection.execute(resumed).scalar_one_or_none() is not None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)
