"""What the shipped weights are trained and measured on, from a folder of portraits; every stage that is already done is not done again.

WORK/set         the prepared portraits, their split, and every face re-drawn by a generator
WORK/validation  twins of the held-out people, augmented as in training: measured and calibrated on
WORK/video-like  the same people's twins as small and as compressed as faces in a shared video: for the threshold
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from farm.contracts import ModelCard
from farm.errors import BadInput
from trainer import augment, blend, resynth
from trainer.config import Data, Run, TrainConfig
from trainer.cutting import Cutting
from trainer.dataset import Material, Source
from trainer.make_fakes import make_fakes
from trainer.manifest import MANIFEST, CropSet
from trainer.prepare import prepare_set
from trainer.ship import Held, ship
from trainer.sources import pictures
from trainer.splits import SPLIT, Split, leaks, make_split
from trainer.train import train

SHARES = dict(zip(blend.KINDS, blend.KIND_SHARES, strict=True))
EPOCH_IMAGES = 4000
"""Between two looks at the validation side."""


@dataclass(frozen=True, slots=True)
class DemoData:
    """The material of a training and the two sets it is measured on."""

    crops: CropSet
    split: Split
    validation: CropSet
    video_like: CropSet

    def material(self) -> Material:
        """The training people's portraits, in the shares of kinds that the shipped weights saw."""
        return Material.of([Source(self.crops, self.split.rows(self.crops, "train"), SHARES)])


def demo_data(
    faces: Path, work: Path, processes: int, say: Callable[[str], None], generator_steps: int = 800, seed: int = 0
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
    if not (folder / resynth.REDRAWN_FROM).exists():
        say("training the generator of re-drawn faces")
        resynth.redraw(crops, split.rows(crops, "train"), steps=generator_steps, seed=seed)
    validation = _twins(crops, split, work / "validation", augment.draw, say)
    return DemoData(crops, split, validation, _twins(crops, split, work / "video-like", augment.video_like, say))


def _split(crops: CropSet) -> Split:
    if not (crops.folder / SPLIT).exists():
        make_split([crops]).save(crops.folder)
    split = Split.open(crops.folder)
    if found := leaks(split, [crops]):
        raise BadInput(
            f"{crops.folder / SPLIT} has {len(found)} leaks, the first: {found[0]}; delete it, and it is drawn again"
        )
    return split


def _twins(crops: CropSet, split: Split, out: Path, recipe_of: augment.Drawing, say: Callable[[str], None]) -> CropSet:
    # Donors of held-out fakes are held out too: nobody of the training appears in any of these pictures.
    if not (out / MANIFEST).exists():
        say(f"making fakes of the held-out people, {out.name}")
        make_fakes(crops, split.rows(crops, "validation"), blend.KINDS, out, recipe_of=recipe_of)
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
) -> ModelCard:
    """Weights like the shipped ones, from a folder of portraits to ONNX and card; every stage that is done is not done again.

    `looked_at`: a prepared set of real manipulations, measured for the card, learnt from never. Raises BadInput.
    """
    data = demo_data(faces, work, processes, say, seed=seed)
    epoch_images = min(images, EPOCH_IMAGES)
    config = TrainConfig(
        data=(Data(str(data.crops.folder), fakes=SHARES),),
        name=f"uynet-w{width}",
        version="0.2",
        width=width,
        run=Run(epochs=math.ceil(images / epoch_images), epoch_images=epoch_images, seed=seed, threads=threads),
    )
    say(f"training; follow {work / 'run' / 'log.jsonl'}")
    train(
        config,
        work / "run",
        lambda event: say(f"epoch {event['epoch']}/{event['epochs']}") if event["event"] == "epoch" else None,
    )
    say("measuring, calibrating and exporting")
    held = [
        Held(name, crops, np.arange(len(crops)))
        for name, crops in (("validation", data.validation), ("video_like", data.video_like))
    ]
    looked = [] if looked_at is None else [Held("swap_pairs", crops := CropSet.open(looked_at), np.arange(len(crops)))]
    return ship(work / "run" / "last.pt", out, held, origin=origin, looked_at=looked)
