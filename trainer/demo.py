"""The shipped weights from a folder of portraits to a card, in one go; every stage that is already done is not done again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from farm.contracts import ModelCard
from trainer import evaluate, export, prepare, resynth, splits, swap_pairs
from trainer.dataset import PairMill
from trainer.train import Recipe, State, restore, train

FAKES = "Fakes are made from the same portraits; nothing else was seen, by the generator neither."
COMMAND = "trainer demo-weights --faces DIR --out DIR"


def demo_weights(
    faces: Path,
    out: Path,
    work: Path,
    recipe: Recipe,
    pairs: Path | None,
    version: str,
    origin: str,
    say: Callable[[str], None],
) -> ModelCard:
    """Prepare, re-draw, train, evaluate, calibrate, export. Goes on where it was stopped, from what stands in `work`."""
    cache = work / "cache"
    if not (cache / "faces.json").exists():
        say("cutting crops")
        prepare.prepare(faces, cache)
    crops = prepare.load(cache)
    train_rows, _ = splits.split(crops)
    if not (cache / "redrawn.npy").exists():
        say("training the generator of re-drawn faces")
        resynth.redraw(crops, train_rows, cache, seed=recipe.seed)
    say(f"training on {len(train_rows)} portraits; follow {work / 'run' / 'log.jsonl'}")
    train(cache, train_rows, work / "run", recipe)
    say("evaluating and exporting")
    return ship(cache, work / "run" / "last.pt", out, pairs, version, origin)


def ship(cache: Path, checkpoint: Path, out: Path, pairs: Path | None, version: str, origin: str) -> ModelCard:
    """Evaluate a checkpoint's averaged weights on held-out persons, calibrate on them, write ONNX and card into `out`.

    `origin` says whose portraits they are and under which licence, in words that follow "N portraits".
    """
    state, recipe = restore(checkpoint)
    faces = prepare.load(cache)
    train_rows, validation_rows = splits.split(faces)
    # Donors of validation fakes are validation persons too: nobody of the training appears in any validation picture.
    mill = PairMill.open(cache, validation_rows)
    ordinary = evaluate.validate(state.average, mill, validation_rows)
    hard = evaluate.validate(state.average, mill, validation_rows, evaluate.video_like)
    metrics: dict[str, Any] = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "validation": evaluate.summarise(ordinary),
    }
    metrics["validation_video_like"] = evaluate.summarise(hard)
    if pairs is not None:
        metrics["swap_pairs"] = swap_pairs.report(state.average, pairs)
    weights = out / f"uynet-w{recipe.width}.onnx"
    metrics["onnx_difference"] = export.export_onnx(state.average, weights)
    training = _training(state, recipe, len(train_rows), len(validation_rows), origin)
    return export.write_card(weights, recipe.width, version, export.calibrate(ordinary, hard), training, metrics)


def _training(state: State, recipe: Recipe, train_faces: int, validation_faces: int, origin: str) -> dict[str, Any]:
    return {
        "data": f"{train_faces + validation_faces:,} portraits {origin}. {FAKES}",
        "licence": "the weights are under the licence of this project; the portraits are not shipped",
        "command": f"{COMMAND} --images {recipe.images} --seed {recipe.seed}",
        "images_seen": state.step * 2 * recipe.pairs,
        "cpu_seconds": round(state.cpu_seconds),
        "train_portraits": train_faces,
        "validation_portraits": validation_faces,
        "cpu_seconds_of": "the training process alone; making the pairs takes about a fifth more beside it",
        "recipe": asdict(recipe),
        "torch": torch.__version__,
    }
