"""Pairs, persons and splits."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from unit.trainer.drawn_faces import draw_face

from farm.errors import BadInput
from trainer import augment, prepare, splits
from trainer.dataset import PairMill, Pairs, to_input
from trainer.evaluate import PLAIN


def test_no_person_is_on_both_sides_of_the_split(cache: Path) -> None:
    faces = prepare.load(cache)
    train, held = splits.split(faces)
    assert len(train) and len(held)
    assert not {faces.persons[i] for i in train} & {faces.persons[i] for i in held}


def test_validation_holds_colour_faces_only(cache: Path) -> None:
    faces = prepare.load(cache)
    _, held = splits.split(faces)
    assert not faces.mono[held].any()


def test_a_portrait_and_an_icpsr_number_of_one_member_are_one_person() -> None:
    people = prepare.known_people()
    icpsr, bioguide = next(iter(people.items()))
    assert prepare.person_of(f"bio_guide_{icpsr:06d}.jpg", people) == bioguide
    assert prepare.person_of(f"portraits_{bioguide}.jpg", people) == bioguide
    assert prepare.person_of("bio_guide_999999.jpg", people) == "icpsr-999999"
    assert prepare.person_of("holiday.png", people) == "holiday.png"


def test_the_same_photograph_under_two_names_becomes_one_person() -> None:
    one, other = (
        cv2.resize(np.random.default_rng(i).integers(0, 256, (9, 9, 3)).astype(np.uint8), (224, 224)) for i in (0, 1)
    )
    brighter = augment.jpeg(np.asarray((one * 0.9 + 10).clip(0, 255), np.uint8), 80)
    joined = prepare.join_twins(["a", "b", "c"], np.stack([one, other, brighter]))
    assert joined == ["a", "b", "a"]


def test_grey_and_toned_pictures_count_as_monochrome() -> None:
    grey = np.repeat(draw_face(0).mean(axis=2, keepdims=True), 3, axis=2)
    sepia = (grey * [1.0, 0.9, 0.75]).astype(np.uint8)
    assert prepare.is_mono(grey.astype(np.uint8)) and prepare.is_mono(sepia)
    colourful = np.zeros((224, 224, 3), np.uint8)
    colourful[:, :112], colourful[:, 112:] = (200, 60, 60), (60, 80, 200)
    assert not prepare.is_mono(colourful)


def test_a_cache_cut_with_another_margin_is_refused(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "faces.json").write_text((cache / "faces.json").read_text().replace('"margin": 0', '"margin": 1'))
    with pytest.raises(BadInput, match="margin"):
        prepare.load(tmp_path)


def test_a_missing_cache_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="trainer prepare"):
        prepare.load(tmp_path / "nothing")


def test_an_empty_folder_of_portraits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no face"):
        prepare.prepare(tmp_path, tmp_path / "cache")


def test_batch_n_is_the_same_whether_or_not_one_starts_there(cache: Path) -> None:
    rows = np.arange(24)
    whole, late = iter(Pairs(cache, rows, 2, seed=5)), iter(Pairs(cache, rows, 2, seed=5, first=2))
    first, second, third = (next(whole) for _ in range(3))
    assert all(torch.equal(a, b) for a, b in zip(third, next(late), strict=True))
    assert not torch.equal(first[0], second[0]) and not torch.equal(second[0], third[0])


def test_a_batch_holds_reals_with_empty_masks_and_then_their_fakes(cache: Path) -> None:
    crops, masks = next(iter(Pairs(cache, np.arange(24), 3, seed=1)))
    assert crops.shape == (6, 3, 224, 224) and crops.dtype == torch.uint8
    assert masks.shape == (6, 1, 224, 224)
    assert not masks[:3].any()
    assert masks[3:].flatten(1).any(dim=1).all()


def test_without_augmentation_a_pair_differs_only_around_its_mask(cache: Path) -> None:
    pair = PairMill.open(cache, np.arange(24)).make(np.random.default_rng(0), row=0, kind="donor", recipe=PLAIN)
    differs = (pair.real != pair.fake).any(axis=2)
    assert differs[pair.mask].mean() > 0.9
    assert differs[~pair.mask].mean() < 0.15


def test_a_donor_is_always_somebody_else(cache: Path) -> None:
    mill = PairMill.open(cache, np.arange(22))
    rng = np.random.default_rng(0)
    assert all(mill.faces.persons[mill._donor(3, rng)] != mill.faces.persons[3] for _ in range(30))


def test_the_networks_input_is_what_the_card_says() -> None:
    from trainer.dataset import INPUT_OFFSET, INPUT_SCALE

    levels = to_input(torch.tensor([0, 128, 255], dtype=torch.uint8))
    assert levels.tolist() == [INPUT_OFFSET, 128 * INPUT_SCALE + INPUT_OFFSET, 255 * INPUT_SCALE + INPUT_OFFSET]
