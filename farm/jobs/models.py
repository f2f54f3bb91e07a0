"""Networks the farm knows: registered from a model card, weights in the object store, chosen by name.

Who names none gets the promoted one, or the shipped one while none is promoted. Promoting and retiring are in promotion.py.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Row, Select, func, select

from farm.contracts import ModelCard
from farm.db.models import Model, ModelState, Scan, TrainingJob
from farm.db.session import database_errors, db_now
from farm.errors import BadInput, BadModel
from farm.farm import Farm
from farm.jobs.upsert import insert_into

SHIPPED = "uynet-w16"
"""Card of the weights that come with the farm."""


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A network as the farm's rows name it."""

    id: int
    card: ModelCard
    object_key: str
    state: ModelState
    #: who moved it into its state, and when in seconds since the epoch; None while it is as it was registered
    state_by: str | None
    state_at: float | None
    created_at: float

    @property
    def named(self) -> str:
        """name@version"""
        return f"{self.card.name}@{self.card.version}"


@dataclass(frozen=True, slots=True)
class ModelUse:
    """Where a network came from and what was found with it."""

    #: scans that took it, retired or not
    scans: int
    #: the training job that made it; None for one that was registered from its card alone
    training_job: int | None


def shipped_card() -> Path:
    """Path of the card that comes with the farm. Raises BadModel where it is not installed."""
    spec = importlib.util.find_spec("workers")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        card = Path(folder) / "models" / f"{SHIPPED}.json"
        if card.is_file():
            return card
    raise BadModel(f"the shipped model card {SHIPPED}.json is not installed; name one with FARM_MODEL")


def register_model(farm: Farm, card_path: Path) -> int:
    """Store the weights beside this card and a row for it; the id of the row, the old one if it is known already.

    Raises BadModel where card and weights disagree, or where this name and version stand for other weights.
    """
    card = ModelCard.load(card_path)
    weights = card_path.parent / card.weights
    try:
        with weights.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadModel(f"weights {weights} cannot be read: {error}") from error
    if sha256 != card.sha256:
        raise BadModel(f"weights {weights} have sha256 {sha256}, but their card says {card.sha256}")
    key = f"models/{sha256}"
    farm.store.put_file(key, weights)
    values = {
        "name": card.name,
        "version": card.version,
        "sha256": sha256,
        "card": json.loads(card.to_json()),
        "object_key": key,
    }
    with database_errors(), farm.sessions.begin() as session:
        session.execute(insert_into(session, Model).values(**values, created_at=db_now()).on_conflict_do_nothing())
        row = session.execute(
            select(Model.id, Model.sha256).where(Model.name == card.name, Model.version == card.version)
        ).one()
    if row.sha256 != sha256:
        raise BadModel(
            f"model {card.name}@{card.version} is registered with other weights ({row.sha256}): give the new ones a new version"
        )
    return int(row.id)


def registered_sha256(farm: Farm, name: str, version: str) -> str | None:
    """What this name and version stand for; None where they are free."""
    query = select(Model.sha256).where(Model.name == name, Model.version == version)
    with database_errors(), farm.sessions() as session:
        return session.execute(query).scalar_one_or_none()


def find_model(farm: Farm, wanted: str) -> int:
    """Id of the model that a new scan takes: a card's path, `name@version`, a name for its latest version that is not retired, or "".

    "" means the promoted one, and the shipped one while none is promoted. Raises BadInput where there is no such model or it is retired.
    """
    if not wanted:
        model = promoted_model(farm) or load_model(farm, register_model(farm, shipped_card()))
    elif wanted.endswith(".json"):
        model = load_model(farm, register_model(farm, Path(wanted)))
    else:
        model = named_model(farm, wanted)
    check_choosable(model)
    return model.id


def check_choosable(model: RegisteredModel) -> None:
    """Return if a new scan may take this model. Raises BadInput where it is retired."""
    if model.state is ModelState.RETIRED:
        raise BadInput(
            f"model {model.named} is retired ({by_and_when(model)}), no new scan may take it: name another with --model, or promote "
            "it again (`farm models list`)"
        )


def by_and_when(model: RegisteredModel) -> str:
    """Who moved the model into its state and when, in words; empty where nobody did."""
    if model.state_at is None:
        return ""
    return f"by {model.state_by} at {datetime.fromtimestamp(model.state_at, UTC):%Y-%m-%d %H:%M:%SZ}"


def named_model(farm: Farm, wanted: str) -> RegisteredModel:
    """The model that `name@version` names; of a name alone the latest version that is not retired, else the latest. Raises BadInput."""
    name, _, version = wanted.partition("@")
    query = _models().where(Model.name == name, *([Model.version == version] if version else []))
    newest = (Model.state == ModelState.RETIRED, Model.created_at.desc(), Model.id.desc())
    with database_errors(), farm.sessions() as session:
        row = session.execute(query.order_by(*newest).limit(1)).one_or_none()
    if row is None:
        known = ", ".join(model.named for model in list_models(farm)) or "none"
        raise BadInput(f"no model {wanted!r} is registered; known: {known}")
    return _registered(row)


def load_model(farm: Farm, model_id: int) -> RegisteredModel:
    """The registered model with this id, retired or not."""
    with database_errors(), farm.sessions() as session:
        return _registered(session.execute(_models().where(Model.id == model_id)).one())


def promoted_model(farm: Farm) -> RegisteredModel | None:
    """The model that scans take when none is named; None while none was ever promoted, and the shipped one is taken."""
    with database_errors(), farm.sessions() as session:
        row = session.execute(_models().where(Model.state == ModelState.PROMOTED)).one_or_none()
    return None if row is None else _registered(row)


def list_models(farm: Farm) -> list[RegisteredModel]:
    """Every registered model, by name and age."""
    with database_errors(), farm.sessions() as session:
        return [_registered(row) for row in session.execute(_models().order_by(Model.name, Model.id))]


def model_use(farm: Farm, model_id: int) -> ModelUse:
    """What was done with this model."""
    job = select(func.max(TrainingJob.id)).where(TrainingJob.model_id == model_id).scalar_subquery()
    with database_errors(), farm.sessions() as session:
        return ModelUse(*session.execute(select(func.count(), job).where(Scan.model_id == model_id)).one())


def _models() -> Select[Any]:
    return select(Model.id, Model.card, Model.object_key, Model.state, Model.state_by, Model.state_at, Model.created_at)


def _registered(row: Row[Any]) -> RegisteredModel:
    card, state = ModelCard.from_values(row.card), ModelState(row.state)
    return RegisteredModel(row.id, card, row.object_key, state, row.state_by, row.state_at, row.created_at)
