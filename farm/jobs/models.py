"""Networks the farm knows: registered from a model card, weights in the object store, chosen by name."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from farm.contracts import ModelCard
from farm.db.models import Model
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


def find_model(farm: Farm, wanted: str) -> int:
    """Id of the model that `wanted` names: a card's path, `name`, `name@version`, or "" for the shipped one.

    A name alone means its latest registration. Raises BadInput where there is no such model.
    """
    if not wanted:
        return register_model(farm, shipped_card())
    if wanted.endswith(".json"):
        return register_model(farm, Path(wanted))
    name, _, version = wanted.partition("@")
    query = select(Model.id).where(Model.name == name).order_by(Model.created_at.desc(), Model.id.desc()).limit(1)
    if version:
        query = query.where(Model.version == version)
    with database_errors(), farm.sessions() as session:
        model_id = session.execute(query).scalar_one_or_none()
        known = (
            session.execute(select(Model.name, Model.version).order_by(Model.name, Model.id)).all()
            if model_id is None
            else []
        )
    if model_id is None:
        raise BadInput(
            f"no model {wanted!r} is registered; known: {', '.join(f'{m.name}@{m.version}' for m in known) or 'none'}"
        )
    return int(model_id)


def load_model(farm: Farm, model_id: int) -> RegisteredModel:
    """The registered model with this id."""
    with database_errors(), farm.sessions() as session:
        row = session.execute(select(Model.card, Model.object_key).where(Model.id == model_id)).one()
    return RegisteredModel(model_id, ModelCard.from_values(row.card), row.object_key)


def list_models(farm: Farm) -> list[RegisteredModel]:
    """Every registered model, by name and age."""
    with database_errors(), farm.sessions() as session:
        rows = session.execute(select(Model.id, Model.card, Model.object_key).order_by(Model.name, Model.id)).all()
    return [RegisteredModel(row.id, ModelCard.from_values(row.card), row.object_key) for row in rows]
