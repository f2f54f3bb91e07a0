"""What weights like the shipped ones are trained and measured on, from a folder of portraits; every stage that is done is not done again.

WORK/set         the prepared portraits, their split, and every face re-drawn by generators
WORK/validation  twins of the held-out people, augmented as in training: measured and calibrated on
WORK/unseen      the same people's twins by generators that stay out of training: how far the network got beyond those it knows
WORK/video-like  the same people's twins as small and as compressed as faces in a shared video: for the threshold
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from farm.contracts import ModelCard
from farm.errors import BadInput
from trainer import augment, resynth
from trainer.config import UNSEEN, Data, Optimiser, Run, TrainConfig
from trainer.cutting import Cutting
from trainer.dataset import Material, Source
from trainer.make_fakes import make_fakes
from trainer.manifest import MANIFEST, CropSet
from trainer.prepare import prepare_set
from trainer.ship import Held, ship
from trainer.sources import pictures
from trainer.splits import SPLIT, Policy, Split, leaks, make_split
from trainer.train import train

SHARES = {"self": 0.35, "resampled": 0.1, "donor": 0.35, "redrawn": 0.2}
"""Of the kinds of fakes that are trained on: most of the two that 0.1 told apart worst, self-blends and donors (LOG.md)."""
EPOCH_IMAGES = 2000
"""Between two looks at the validation side."""


@dataclass(frozen=True, slots=True)
class DemoData:
    """The material of a training and the sets it is measured on."""

    crops: CropSet
    split: Split
    validation: CropSet
    unseen: CropSet
    video_like: CropSet

    def material(self) -> Material:
        """The training people's portraits, with the kinds of fakes in their SHARES."""
        return Material.of([Source(self.crops, self.split.rows(self.crops, "train"), SHARES)])


def demo_data(
    faces: Path, work: Path, processes: int, say: Callable[[str], None], generator_steps: int = 300, seed: int = 0
) -> DemoData:
    """Prepare, split, re-draw, and make the fakes of the held-out people. Goes on where it was stopped, from what stands in `work`.

    Raises BadInput where `faces` holds no face, or the split that stands in `work` leaks.
    """
    folder = work / "set"
    if not (folder / MANIFEST).exists():
        say("cutting crops")
        prepare_set(pictures.read(faces), folder, Cutting(frames=1), processes)
    crops = CropSet.open(folder)
    split = _split(crops)
    if not (folder / resynth.REDRAWN / resynth.ORIGIN).exists():
        say("training the generators of re-drawn faces")
        resynth.redraw(crops, split.rows(crops, "train"), steps=generator_steps, seed=seed)
    held_out = [
        _twins(crops, split, kinds, work / name, recipe_of, say)
        for name, kinds, recipe_of in (
            ("validation", list(SHARES), augment.draw),
            ("unseen", [UNSEEN], augment.draw),
            ("video-like", ["donor", "redrawn", UNSEEN], augment.video_like),
        )
    ]
    return DemoData(crops, split, *held_out)


def _split(crops: CropSet) -> Split:
    if not (crops.folder / SPLIT).exists():
        make_split([crops]).save(crops.folder)
    split = Split.open(crops.folder)
    if found := leaks(split, [crops]):
        raise BadInput(
            f"{crops.folder / SPLIT} has {len(found)} leaks, the first: {found[0]}; delete it, and it is drawn again"
        )
    return split


def _twins(
    crops: CropSet,
    split: Split,
    kinds: list[str],
    out: Path,
    recipe_of: augment.Drawing,
    say: Callable[[str], None],
) -> CropSet:
    # Donors of held-out fakes are held out too: nobody of the training appears in any of these pictures.
    if not (out / MANIFEST).exists():
        say(f"making fakes of the held-out people, {out.name}")
        make_fakes(crops, split.rows(crops, "validation"), kinds, out, recipe_of=recipe_of)
    return CropSet.open(out)


def demo_weights(
    faces: Path,
    work: Path,
    out: Path,
    say: Callable[[str], None],
    *,
    images: int = 78_000,
    seed: int = 7,
    threads: int = 1,
    processes: int = 1,
    origin: str = "",
    looked_at: Path | None = None,
    width: int = 16,
    start_from: Path | None = None,
) -> ModelCard:
    """Weights like the shipped ones, from a folder of portraits to ONNX and card; every stage that is done is not done again.

    `looked_at`: a prepared set of real manipulations, measured for the card, learnt from never. `start_from`: weights of an earlier call
    (card or checkpoint), to go on from instead of random ones. Raises BadInput, also where those may have seen the held-out people.
    """
    data = demo_data(faces, work, processes, say, seed=seed)
    if start_from is not None:
        check_unseen_before(data.crops, data.split)
    say(f"training; follow {work / 'run' / 'log.jsonl'}")
    train(
        _config(data, images, seed, threads, width, start_from),
        work / "run",
        lambda event: say(f"epoch {event['epoch']}/{event['epochs']}") if event["event"] == "epoch" else None,
    )
    say("measuring, calibrating and exporting")
    held = [
        Held(name, crops, np.arange(len(crops)))
        for name, crops in (("validation", data.validation), ("unseen", data.unseen), ("video_like", data.video_like))
    ]
    looked = [] if looked_at is None else [Held("swap_pairs", crops := CropSet.open(looked_at), np.arange(len(crops)))]
    return ship(work / "run" / "last.pt", out, held, origin=origin, looked_at=looked)


def check_unseen_before(crops: CropSet, split: Split) -> None:
    """Raise BadInput if anybody is held out whom weights of an earlier call, the shipped 0.1 among them, may have been trained on.

    All of them drew a person's side from the hash of the person's own name alone, with one share.
    """
    rows, drawing = split.rows(crops, "validation"), Policy()
    seen = sorted({str(name) for name in crops.column("group")[rows] if drawing.side(str(name)) != "validation"})
    if seen:
        raise BadInput(
            f"{len(seen)} of the held-out people, {seen[0]} among them, may have been seen by the weights to start from; delete "
            f"{crops.folder / SPLIT}, and it is drawn as it was for them"
        )


def _config(data: DemoData, images: int, seed: int, threads: int, width: int, start_from: Path | None) -> TrainConfig:
    epoch_images = min(images, EPOCH_IMAGES)
    run = Run(
        epochs=math.ceil(images / epoch_images),
        epoch_images=epoch_images,
        validation_images=256,
        seed=seed,
        threads=threads,
        accumulate=2,  # 16 pictures at once fit a CPU's cache better than 32: 10.7 a CPU second against 8.8
    )
    optimiser = Optimiser()
    if start_from is not None:
        # Stages of 2,000 pictures at this rate cost AUC; 48,000 in one bettered masks and video-like crops; see LOG.md.
        run = replace(run, start_from=str(start_from.resolve()), window_share=0.8)
        optimiser = replace(optimiser, learning_rate=1e-3, cooldown=0.5)
    return TrainConfig(
        data=(Data(str(data.crops.folder), fakes=SHARES),),
        name=f"uynet-w{width}",
        version="0.2",
        width=width,
        run=run,
        optimiser=optimiser,
    )
