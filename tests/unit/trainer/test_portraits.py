"""One person under two names, and pictures without colour, are known for what they are."""

from __future__ import annotations

import cv2
import numpy as np
from unit.trainer.drawn_faces import draw_face

from trainer import augment, portraits


def test_a_portrait_and_an_icpsr_number_of_one_member_are_one_person() -> None:
    people = portraits.known_people()
    icpsr, bioguide = next(iter(people.items()))
    assert portraits.person_of(f"bio_guide_{icpsr:06d}.jpg", people) == bioguide
    assert portraits.person_of(f"portraits_{bioguide}.jpg", people) == bioguide
    assert portraits.person_of("bio_guide_999999.jpg", people) == "icpsr-999999"
    assert portraits.person_of("holiday.png", people) == "holiday.png"


def test_the_same_photograph_under_two_names_becomes_one_person() -> None:
    one, other = (
        cv2.resize(np.random.default_rng(i).integers(0, 256, (9, 9, 3)).astype(np.uint8), (224, 224)) for i in (0, 1)
    )
    brighter = augment.jpeg(np.asarray((one * 0.9 + 10).clip(0, 255), np.uint8), 80)
    joined = portraits.join_twins(["a", "b", "c"], np.stack([one, other, brighter]))
    assert joined == ["a", "b", "a"]


def test_grey_and_toned_pictures_count_as_monochrome() -> None:
    grey = np.repeat(draw_face(0).mean(axis=2, keepdims=True), 3, axis=2)
    sepia = (grey * [1.0, 0.9, 0.75]).astype(np.uint8)
    assert portraits.is_mono(grey.astype(np.uint8)) and portraits.is_mono(sepia)
    colourful = np.zeros((224, 224, 3), np.uint8)
    colourful[:, :112], colourful[:, 112:] = (200, 60, 60), (60, 80, 200)
    assert not portraits.is_mono(colourful)
