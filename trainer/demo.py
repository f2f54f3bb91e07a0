"""What the shipped weights are trained and measured on, from a folder of portraits; every stage that is already done is not done again.

WORK/set         the prepared portraits, their split, and every face re-drawn by a generator
WORK/validation  twins of the held-out people, augmented as in training: measured and calibrated on
WORK/video-like  the same people's twins as small and as compressed as faces in a shared video: for the threshold
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from farm.errors import BadInput
from trainer import augment, blend, resynth
from trainer.cutting import Cutting
from trainer.dataset import Material, Source
from trainer.make_fakes import make_fakes
from trainer.manifest import MANIFEST, CropSet
from trainer.prepare import prepare_set
from trainer.sources import pictures
from trainer.splits import SPLIT, Split, leaks, make_split

SHARES = dict(zip(blend.KINDS, blend.KIND_SHARES, strict=True))


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
