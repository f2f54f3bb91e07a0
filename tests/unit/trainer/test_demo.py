"""From a folder of portraits to what the shipped weights are trained and measured on, in small."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from farm.errors import BadInput
from trainer.dataset import Batches
from trainer.demo import DemoData, check_unseen_before, demo_data
from trainer.manifest import MANIFEST, CropSet
from trainer.splits import make_split


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, portraits: Path) -> Path:
    """A work folder whose crops are cut already: no detector finds drawn faces."""
    folder = tmp_path_factory.mktemp("work")
    shutil.copytree(portraits, folder / "set")
    # Of 12 people the usual share holds out one, who would have no donor.
    make_split([CropSet.open(folder / "set")], validation=0.4).save(folder / "set")
    return folder


def run(work: Path) -> tuple[DemoData, list[str]]:
    said: list[str] = []
    return demo_data(work / "no portraits needed", work, 1, said.append, generator_steps=3), said


def test_every_stage_is_done_once(work: Path) -> None:
    first, said = run(work)
    assert [line.split()[0] for line in said] == ["training", *3 * ["making"]], "the crops stood there already"
    again, said = run(work)
    assert said == []
    assert again.validation.table.equals(first.validation.table)


def test_nobody_who_is_measured_on_was_trained_on(work: Path) -> None:
    data, _ = run(work)
    (source,) = data.material().sources
    trained = set(data.crops.column("group")[source.rows])
    for held_out in (data.validation, data.unseen, data.video_like):
        assert held_out.fake.any() and not set(held_out.column("group")) & trained


def test_the_two_measured_sets_show_the_same_people_in_other_conditions(work: Path) -> None:
    data, _ = run(work)
    people, name = set(data.video_like.column("group")), str(data.unseen.videos[0])
    assert people == set(data.validation.column("group")) == set(data.unseen.column("group"))
    assert name in data.video_like.videos
    there = int(np.flatnonzero(data.video_like.videos == name)[0])
    assert (data.unseen.crop(0) != data.video_like.crop(there)).any()


def test_unseen_generators_are_measured_on_and_not_trained_on(work: Path) -> None:
    data, _ = run(work)
    assert set(data.unseen.column("method")) == {"real", "unseen"}
    assert "unseen" not in data.validation.column("method") and "unseen" not in data.material().sources[0].kinds


def test_weights_that_may_have_seen_the_held_out_people_are_not_started_from(work: Path) -> None:
    crops = CropSet.open(work / "set")
    with pytest.raises(BadInput, match="of the held-out people, p"):
        check_unseen_before(crops, make_split([crops], validation=0.4))
    check_unseen_before(crops, make_split([crops]))


def test_batches_can_be_drawn_from_the_material(work: Path) -> None:
    data, _ = run(work)
    assert Batches(data.material(), 2, seed=0).batch(0).crops.shape == (4, 3, 224, 224)


def test_a_leaking_split_in_the_work_folder_is_refused(portraits_copy: Path, tmp_path: Path) -> None:
    portraits_copy.rename(tmp_path / "set")
    make_split([CropSet.open(tmp_path / "set")], by="video", validation=0.5).save(tmp_path / "set")
    with pytest.raises(BadInput, match="leaks, the first: component p"):
        run(tmp_path)
    assert (tmp_path / "set" / MANIFEST).exists()


def test_a_folder_without_portraits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput):
        demo_data(tmp_path / "empty", tmp_path / "work", 1, lambda line: None)
