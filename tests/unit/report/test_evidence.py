"""Which crops are shown, and what is painted on them."""

import base64

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from farm.contracts import CROP_SIDE_PX, Box
from farm.db.results import ScoredFace
from farm.report.evidence import CROPS_PER_TRACK, CROPS_SHOWN, FRAME_SIDE_PX, Chooser, frame_picture, whole_frames

GREY = 120


def scored(track: int, pts_seconds: float, p_fake: float, *, box: Box = Box(10, 10, 50, 60)) -> ScoredFace:
    return ScoredFace(
        1, int(pts_seconds) % 64, track, int(pts_seconds * 10), pts_seconds, box, box, 0.9, 0.0, p_fake, 0.1
    )


def chosen(crops: list[ScoredFace], tracks: list[int], end: float = 160.0) -> Chooser:
    chooser = Chooser(end, tracks)
    for each in crops:
        chooser.add(each)
    return chooser


def pixels(uri: str) -> NDArray[np.uint8]:
    packed = np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8)
    return cv2.cvtColor(cv2.imdecode(packed, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def test_the_highest_crop_is_shown_first_and_its_frame_whole() -> None:
    crops = chosen([scored(0, t, 0.2 + t / 1000) for t in range(160)], [0]).crops()
    assert crops[0].pts_seconds == 159
    assert whole_frames(crops, {crops[0].frame_index: [crops[0]]}) == [crops[0]]


def test_neighbours_in_time_do_not_fill_the_page() -> None:
    crops = chosen([scored(0, t / 100, 0.9) for t in range(900)] + [scored(0, 100.0, 0.3)], [0]).crops()
    assert [crop.pts_seconds for crop in crops] == [0.0, 100.0]


def test_one_face_does_not_take_all_places_from_another() -> None:
    crops = chosen([scored(0, t, 0.9) for t in range(160)] + [scored(1, t, 0.4) for t in range(160)], [0, 1]).crops()
    assert [crop.track for crop in crops] == [0] * CROPS_PER_TRACK + [1] * (CROPS_SHOWN - CROPS_PER_TRACK)


def test_a_second_frame_is_shown_for_a_face_that_the_first_one_lacks() -> None:
    alone, beside = scored(0, 1.0, 0.9), scored(1, 1.0, 0.2)
    crops = [alone, scored(0, 90.0, 0.8), scored(1, 150.0, 0.3)]
    assert whole_frames(crops, {alone.frame_index: [alone]}) == [crops[0], crops[2]]
    assert whole_frames(crops, {alone.frame_index: [alone, beside]}) == [crops[0]]
    assert whole_frames([], {}) == []


@given(st.lists(st.tuples(st.integers(0, 500), st.floats(0, 7200), st.floats(0, 1)), max_size=80))
def test_whatever_comes_the_choice_is_small_and_holds_the_highest_of_the_tracks(
    values: list[tuple[int, float, float]],
) -> None:
    chooser = chosen([scored(*value) for value in values], [0, 1, 2], end=7200.0)
    assert len(chooser.crops()) <= CROPS_SHOWN
    assert max((crop.p_fake for crop in chooser.crops()), default=None) == max((v[2] for v in values), default=None)


def test_a_mask_is_painted_where_its_crop_lay_and_nowhere_else() -> None:
    frame = np.full((400, 600, 3), GREY, np.uint8)
    crop = scored(0, 1.0, 0.9, box=Box(300, 100, 500, 300))
    mask = np.zeros((CROP_SIDE_PX, CROP_SIDE_PX), np.bool_)
    mask[: CROP_SIDE_PX // 2] = True
    seen = pixels(frame_picture(frame, 1.0, [crop], {(crop.crop_batch_id, crop.row): mask}, 0.8).image).astype(int)
    redness = seen[..., 0] - seen[..., 1]
    assert redness[120:190, 310:490].min() > 20
    assert abs(redness[215:290, 310:490]).max() < 20
    assert abs(redness[:, :280]).max() < 20


def test_the_mask_of_a_face_below_the_threshold_claims_nothing() -> None:
    frame = np.full((400, 600, 3), GREY, np.uint8)
    crop = scored(0, 1.0, 0.79, box=Box(300, 100, 500, 300))
    mask = np.ones((CROP_SIDE_PX, CROP_SIDE_PX), np.bool_)
    seen = pixels(frame_picture(frame, 1.0, [crop], {(crop.crop_batch_id, crop.row): mask}, 0.8).image).astype(int)
    assert abs(seen[120:280, 320:480] - GREY).max() < 12


def test_a_large_frame_is_shown_small_with_its_box_in_place() -> None:
    frame = np.full((2160, 3840, 3), GREY, np.uint8)
    shown = frame_picture(frame, 1.0, [scored(3, 1.0, 0.95, box=Box(1920, 1080, 2320, 1480))], {}, 0.8)
    assert (shown.width, shown.height) == (FRAME_SIDE_PX, 540)
    assert shown.words == "face 3 scores 0.950"
    edge = pixels(shown.image)[300:360, 480].astype(int)
    assert (abs(edge - GREY).max(axis=1) > 40).all()


def test_a_crowd_is_counted_and_its_highest_faces_named() -> None:
    faces = [scored(track, 1.0, track / 20) for track in range(20)]
    shown = frame_picture(np.full((100, 100, 3), GREY, np.uint8), 1.0, faces, {}, 0.8)
    assert shown.boxes == 20
    assert shown.words.startswith("face 19 scores 0.950, face 18")
    assert shown.words.endswith("and 14 more")
