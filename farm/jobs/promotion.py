"""Which network scans take when none is named: one is promoted at a time, by a person. Retired ones are taken by no new scan.

Every move locks all rows of `models`, so that two at once happen one after the other; the table's partial unique key holds it anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from farm.contracts import ModelCard
from farm.db.models import ModelState
from farm.db.session import db_now
from farm.errors import BadInput, BadModel
from farm.farm import Farm
from farm.jobs.models import RegisteredModel, load_model, named_model, shipped_card
from farm.jobs.tables import MODELS


@dataclass(frozen=True, slots=True)
class Promotion:
    """A network that scans take now, and the one that they took before."""

    model: RegisteredModel
    #: now a candidate; None where none was promoted, or this one was already
    before: RegisteredModel | None
    #: False where it was promoted already
    changed: bool


def promote(farm: Farm, wanted: str, by: str) -> Promotion:
    """Make `name@version` the one that scans take when none is named; the one promoted before is a candidate again.

    A retired one comes back this way. Raises BadInput for a model that is not registered.
    """
    model_id = _exactly(farm, wanted)
    with farm.write() as connection:
        states = _locked(connection)
        before = next((each for each, state in states.items() if state == ModelState.PROMOTED), None)
        if before != model_id:
            if before is not None:
                _move(connection, before, ModelState.CANDIDATE, by)
            _move(connection, model_id, ModelState.PROMOTED, by)
    changed = before != model_id
    return Promotion(
        load_model(farm, model_id), load_model(farm, before) if changed and before is not None else None, changed
    )


def retire(farm: Farm, wanted: str, by: str) -> RegisteredModel:
    """Let no new scan take `name@version`; scans that have it go on, and what it found stays.

    Raises BadInput for a model that is not registered, and for the one that scans take when none is named: nothing takes its place
    unasked.
    """
    model_id = _exactly(farm, wanted)
    shipped = _shipped()
    with farm.write() as connection:
        states = _locked(connection)
        promoted = next((each for each, state in states.items() if state == ModelState.PROMOTED), None)
        if model_id == promoted or (promoted is None and wanted == shipped):
            raise BadInput(
                f"model {wanted} is the one that scans take when none is named: promote another first "
                "(`farm models promote NAME@VERSION`)"
            )
        if states[model_id] != ModelState.RETIRED:
            _move(connection, model_id, ModelState.RETIRED, by)
    return load_model(farm, model_id)


def _exactly(farm: Farm, wanted: str) -> int:
    """Id of `name@version`; a name alone is refused, since another version may be the latest tomorrow."""
    model = named_model(farm, wanted)
    if wanted != model.named:
        raise BadInput(f"name the version too, such as {model.named}: {wanted!r} may mean another one tomorrow")
    return model.id


def _shipped() -> str | None:
    """name@version of the card that comes with the farm, where one does."""
    try:
        card = ModelCard.load(shipped_card())
    except BadModel:
        return None
    return f"{card.name}@{card.version}"


def _locked(connection: Connection) -> dict[int, str]:
    """State by id of every model. On SQLite the transaction holds the write lock already."""
    rows = select(MODELS.c.id, MODELS.c.state).order_by(MODELS.c.id).with_for_update(key_share=True)
    return {row.id: row.state for row in connection.execute(rows)}


def _move(connection: Connection, model_id: int, state: ModelState, by: str) -> None:
    moved = {"state": state, "state_by": by[:200], "state_at": db_now()}
    connection.execute(update(MODELS).where(MODELS.c.id == model_id).values(**moved))
