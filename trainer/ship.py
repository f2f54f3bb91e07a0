"""From a checkpoint to a model that the farm can run: measured, calibrated, exported, with a card that says what it is worth."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from farm.contracts import ModelCard
from farm.errors import BadInput
from trainer import export, measure
from trainer.blend import KINDS as BLENDS
from trainer.calibrate import VIDEO_MARGIN, abstaining, calibrate
from trainer.checkpoint import load_network, read_checkpoint
from trainer.evaluate import BOOTSTRAP_ROUNDS, Evaluation, auc_of, evaluate, figures
from trainer.evaluation_page import write_report
from trainer.manifest import CropSet
from trainer.scoring import TORCH, open_scorer

LEAST_GROUPS = 30
"""Groups of people that a model must have been measured on to be more than a demonstration."""

DEMONSTRATION = (
    "A demonstration: it has not been shown to find real manipulations of unseen people.",
    "Never use its word to accuse anybody, nor to clear a video.",
)
BLENDED = (
    "Measured and calibrated on fakes that the trainer made itself; its AUC on real neural face swaps may be no better than chance.",
    "It never says REAL: what it misses of fakes of other making is not known.",
    "The false-positive rate holds for faces like those of the validation side; other footage will give more false alarms.",
)
ABSTAINS = "It always abstains: on"
CHANCE = (
    f"{ABSTAINS} {{}} its AUC by frame has not been shown to be above 0.5, the chance level, so no score earns a word."
)
EVERY = (
    "Temperature, bias, threshold and real_below were fitted on the validation side, which the training did not see.",
)


@dataclass(frozen=True, slots=True)
class Held:
    """A held-out set and the rows of it that count."""

    name: str
    crops: CropSet
    rows: NDArray[np.intp]


def ship(
    checkpoint: Path,
    out: Path,
    held: Sequence[Held],
    *,
    name: str = "",
    version: str = "",
    origin: str = "",
    demonstration: bool = True,
    looked_at: Sequence[Held] = (),
    report: Path | None = None,
) -> ModelCard:
    """Measure, calibrate on `held`, and write NAME.onnx, its two parts and its card into `out`. Name and version default to the training's.

    `looked_at` sets are measured for the card and choose nothing. `report`: folder for an evaluation of every set.
    `origin`: whose pictures the data are, and under which licence.
    Raises BadInput where `demonstration` is False and the model was not measured on LEAST_GROUPS groups with fakes of a data set's own,
    or its split leaks.
    """
    parts, network = read_checkpoint(checkpoint), load_network(checkpoint)
    scorer = open_scorer(str(checkpoint), TORCH)
    found = {one.name: evaluate(one.crops, one.rows, scorer) for one in (*held, *looked_at)}
    fitted_on = [found[one.name] for one in held]
    own = _only_blends(fitted_on)
    if not demonstration:
        _check_entitled(fitted_on, parts["facts"])
    calibration = calibrate(fitted_on, margin=VIDEO_MARGIN if own else 0.0, says_real=not own)
    if at_chance := [one.name for one in held if not _above_chance(found[one.name])]:
        calibration = abstaining(calibration)
    told = {
        name: figures(one, calibration.temperature, calibration.bias, calibration.threshold)
        for name, one in found.items()
    }
    for one_held in (*held, *looked_at) if report is not None else ():
        assert report is not None
        shown = told[one_held.name] | {"scored_by": scorer.facts, "set": one_held.name, "side": "held out"}
        write_report(shown, found[one_held.name], one_held.crops, one_held.rows, scorer, report / one_held.name)
    # The graphs and their card come last and together: whatever fails before leaves the model that stood in `out` as it was.
    weights = out / f"{name or parts['config']['name']}.onnx"
    first = held[0]
    crops = np.stack([first.crops.crop(int(row)) for row in first.rows[: export.REAL_CROPS]])
    exported = export.export_onnx(network, weights, crops)
    metrics: dict[str, Any] = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "onnx_difference": exported.difference,
        "parts_difference": exported.parts_difference,
    }
    metrics |= {name: _brief(one) for name, one in told.items()}
    notes = _notes(own, at_chance, demonstration=demonstration)
    notes += tuple(_sentence(one.name, metrics[one.name]) for one in looked_at)
    return export.write_card(
        weights,
        parts["config"]["width"],
        version or parts["config"]["version"],
        calibration,
        _training_facts(parts, origin),
        metrics,
        notes,
        demonstration=demonstration,
    )


def _notes(own: bool, at_chance: Sequence[str], *, demonstration: bool) -> tuple[str, ...]:
    """What the card says in words of a network that was measured on fakes of our `own` alone, and of sets where it is `at_chance`."""
    chance = (CHANCE.format(" and ".join(at_chance)),) if at_chance else ()
    return (DEMONSTRATION if demonstration else ()) + (BLENDED if own else ()) + chance + EVERY


def _above_chance(found: Evaluation) -> bool:
    """Whether the 95 % interval of the AUC by frame, over groups of people, can be had and lies above a half."""
    low, _ = measure.interval(lambda rows: auc_of(found, rows), found.groups.tolist(), BOOTSTRAP_ROUNDS)
    return bool(low > 0.5)


def _training_facts(parts: dict[str, Any], origin: str) -> dict[str, Any]:
    """What the card says of the training of a checkpoint."""
    facts: dict[str, Any] = parts["facts"]
    return facts | {
        "origin": origin or "nobody stated whose pictures these are",
        "config": _without_places(parts["config"]),
        "images_seen": parts["step"] * 2 * parts["config"]["run"]["pairs"],
        "cpu_seconds": round(parts["cpu_seconds"]),
        "precision": parts["precision"],
    }


def _sentence(name: str, brief: dict[str, Any]) -> str:
    """What a set that was only looked at says, in words."""
    told = []
    for unit in ("frame", "video"):
        interval = brief[f"{unit}_auc_95"]
        between = f" (95 % {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
        told.append(
            f"AUC by {unit} {brief[f'{unit}_auc']:.2f}{between}" if brief[f"{unit}_auc"] is not None else "no AUC"
        )
    return (
        f"Looked at and never learnt from, {name}: {brief['videos']} videos of {brief['groups']} groups of people; {' and '.join(told)}; "
        "0.5 is chance."
    )


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without folders of the machine it ran on; sets and what it started from stand in the card by name and sha256."""
    run = {key: value for key, value in config["run"].items() if key != "start_from"}
    return {key: value for key, value in config.items() if key != "data"} | {"run": run}


def _only_blends(found: Sequence[Evaluation]) -> bool:
    return all(method in BLENDS for one in found for method in np.unique(one.methods[one.fake]))


def _check_entitled(found: Sequence[Evaluation], facts: dict[str, Any]) -> None:
    groups = {group for one in found for group in one.groups}
    if _only_blends(found):
        raise BadInput("this model stays a demonstration: it was measured on fakes of the trainer's own making alone")
    if len(groups) < LEAST_GROUPS:
        raise BadInput(
            f"this model stays a demonstration: it was measured on {len(groups)} groups of people, at least {LEAST_GROUPS} are needed"
        )
    if facts.get("leaks"):
        raise BadInput("this model stays a demonstration: its split leaks, so what was measured flatters")


def _brief(told: dict[str, Any]) -> dict[str, Any]:
    """The figures a card keeps."""
    brief: dict[str, Any] = {key: told[key] for key in ("crops", "videos", "groups", "reals", "fakes")}
    for name in ("frame", "video"):
        brief |= {
            f"{name}_{key}": told[name][key]
            for key in ("auc", "auc_95", "eer", "average_precision", "log_loss", "calibration_error")
        }
    brief |= {f"mask_{key}": told["mask"][key] for key in ("iou", "iou_95", "dice")} | {
        "ellipse_iou": told["mask"]["ellipse_iou"]
    }
    brief["frame_auc_by_method"] = {
        name: one["auc"] for name, one in told["by_method"].items() if one["auc"] is not None
    }
    return brief
