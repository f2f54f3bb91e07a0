"""Faces numbered through a video's frames."""

import numpy as np
import pytest

from farm.contracts import Box, Face
from farm.media.tracks import LONGEST_GAP_SECONDS, Tracker

RNG = np.random.default_rng(3)
SCENE = RNG.integers(0, 256, (9, 16, 3), np.uint8).repeat(20, axis=0).repeat(20, axis=1)
OTHER_SCENE = SCENE[::-1, ::-1] // 3


def face(x: float, y: float = 100, side: float = 60) -> Face:
    return Face(Box(x, y, x + side, y + side * 1.2), 0.9)


def test_a_face_that_moves_keeps_its_number() -> None:
    tracker = Tracker()
    assert [tracker.follow(SCENE, n * 1.5, [face(20 + 30 * n)]) for n in range(6)] == [[0]] * 6
    assert tracker.tracks == 1


def test_a_face_that_moves_by_almost_its_own_size_keeps_its_number() -> None:
    tracker = Tracker()
    tracker.follow(SCENE, 0, [face(20)])
    assert tracker.follow(SCENE, 1, [face(20 + 42, 100 + 30)]) == [0]
    assert tracker.follow(SCENE, 2, [face(20 + 42 + 130)]) == [1]


def test_two_faces_keep_their_numbers_whatever_order_they_come_in() -> None:
    tracker = Tracker()
    assert tracker.follow(SCENE, 0, [face(20), face(200)]) == [0, 1]
    assert tracker.follow(SCENE, 1, [face(205), face(25)]) == [1, 0]
    assert tracker.follow(SCENE, 2, [face(30)]) == [0]
    assert tracker.follow(SCENE, 3, [face(210), face(35)]) == [1, 0]


def test_the_nearest_of_two_rivals_wins() -> None:
    tracker = Tracker()
    tracker.follow(SCENE, 0, [face(100)])
    assert tracker.follow(SCENE, 1, [face(140), face(104)]) == [1, 0]


def test_a_new_face_gets_a_new_number() -> None:
    tracker = Tracker()
    tracker.follow(SCENE, 0, [face(20)])
    assert tracker.follow(SCENE, 1, [face(200), face(20)]) == [1, 0]
    assert tracker.tracks == 2


def test_a_face_of_quite_another_size_is_another_face() -> None:
    tracker = Tracker()
    tracker.follow(SCENE, 0, [face(100, side=100)])
    assert tracker.follow(SCENE, 1, [face(120, 120, side=50)]) == [1]


def test_a_change_of_scene_ends_every_track() -> None:
    tracker = Tracker()
    tracker.follow(SCENE, 0, [face(100)])
    assert tracker.follow(OTHER_SCENE, 0.5, [face(100)]) == [1]
    assert tracker.scene_changes == 1


def test_a_cut_between_two_dark_rooms_is_seen() -> None:
    def room(left: int, top: int) -> np.ndarray:
        picture = np.full((180, 320, 3), 4, np.uint8)
        picture[top : top + 80, left : left + 120] = RNG.integers(30, 90, (80, 120, 3), np.uint8)
        picture[100:180, ::7] += 40 if left else 0
        return picture

    tracker = Tracker()
    tracker.follow(room(0, 0), 0, [face(100)])
    assert tracker.follow(room(180, 90), 1, [face(100)]) == [1]


@pytest.mark.parametrize("change", ["noise", "light", "shift"])
def test_noise_light_and_a_moving_camera_are_no_change_of_scene(change: str) -> None:
    later = {
        "noise": np.clip(SCENE + RNG.normal(0, 8, SCENE.shape), 0, 255).astype(np.uint8),
        "light": (SCENE * 0.9).astype(np.uint8),
        "shift": np.roll(SCENE, 6, axis=1),
    }[change]
    tracker = Tracker()
    tracker.follow(SCENE, 0, [face(100)])
    assert tracker.follow(later, 1, [face(100)]) == [0]
    assert tracker.scene_changes == 0


def test_a_face_missed_in_one_frame_keeps_its_number_and_one_long_gone_does_not() -> None:
    tracker = Tracker()
    tracker.follow(SCENE, 0, [face(100)])
    assert tracker.follow(SCENE, 2, []) == []
    assert tracker.follow(SCENE, 4, [face(110)]) == [0]
    assert tracker.follow(SCENE, 4.1 + LONGEST_GAP_SECONDS, [face(110)]) == [1]


def test_the_same_frames_give_the_same_numbers() -> None:
    frames = [[face(float(x)) for x in RNG.integers(0, 260, RNG.integers(0, 5))] for _ in range(30)]

    def numbers() -> list[list[int]]:
        tracker = Tracker()
        return [tracker.follow(SCENE, n / 2, faces) for n, faces in enumerate(frames)]

    assert numbers() == numbers()
    assert all(len(set(row)) == len(row) for row in numbers()), "one number stands for one face of a frame"
