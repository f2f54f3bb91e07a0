"""The recipe a scan is split by: the farm's settings, the model's crop margin, and what the user chose."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from farm.farm import Farm
from farm.jobs.models import find_model, load_model
from farm.split import Recipe

_FROM_MODEL = {"margin": "crop_margin"}
"""Fields of a recipe that the model card decides."""


def recipe_of(farm: Farm, *, model: str = "", sampling: str = "") -> Recipe:
    """The recipe for a scan with this model and sampling policy, "" meaning the farm's setting. Raises BadInput, BadModel."""
    return recipe_for(farm, find_model(farm, model or farm.settings.model), sampling=sampling)


def recipe_for(farm: Farm, model_id: int, *, sampling: str = "") -> Recipe:
    """As `recipe_of`, for a model that is registered. Raises BadInput for an unknown sampling policy."""
    chosen = farm.settings.model_dump()
    values: dict[str, Any] = {field.name: chosen[field.name] for field in fields(Recipe) if field.name in chosen}
    return Recipe(**values | _of_model(farm, model_id) | ({"sampling": sampling} if sampling else {}))


def recipe_again(farm: Farm, old: dict[str, Any], *, model_id: int | None = None, sampling: str = "") -> Recipe:
    """The recipe of an earlier scan, for another model or sampling policy. Raises BadInput for an unknown sampling policy."""
    recipe = Recipe.from_json(old)
    changed: dict[str, Any] = {"sampling": sampling} if sampling else {}
    if model_id is not None:
        changed |= _of_model(farm, model_id)
    return replace(recipe, **changed)


def _of_model(farm: Farm, model_id: int) -> dict[str, Any]:
    card = load_model(farm, model_id).card
    return {name: getattr(card, theirs) for name, theirs in _FROM_MODEL.items()}
