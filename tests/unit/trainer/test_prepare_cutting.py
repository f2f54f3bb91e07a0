"""What one unit of work gives, without any pool."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from dfdc_folder import write_dfdc
from numpy.typing import NDArray

from farm.contracts import Box
from farm.samples import FACE, SUIT, astronaut, moving, write_clip
from farm.samples import manipulated as with_another_face
from trainer.cutting import Cutting, Unit, cut_unit
from trainer.faces import one_per_frame
from trainer.manifest import SCHEMA, CropSet
from trainer.sources.listing import FAKE, Source

HOW = Cutting(frames=4)
SHORT = 8


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """real_0.mp4, fake_0_0.mp4 and fake_0_1.mp4 of 24 frames."""
    return write_dfdc(tmp_path_factory.mktemp("dfdc"), parts=1) / "dfdc_train_part_0"


@pytest.fixture
def root(clips: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clips, tmp_path / "root"))


Cut = Callable[..., tuple[CropSet, list[dict[str, object]]]]


@pytest.fixture
def cut(root: Path, tmp_path: Path) -> Cut:
    def cut(*videos: str, pictures: bool = False, how: Cutting = HOW) -> tuple[CropSet, list[dict[str, object]]]:
        """Cut the first video as a real and the others as its fakes; answers the unit's rows and remarks."""
        real = Source.real(videos[0], "g")
        fakes = [Source(video, FAKE, real.video, "g", "swap") for video in videos[1:]]
        return run(Unit("unit", (real, *fakes), 1, pictures), how)

    def run(unit: Unit, how: Cutting) -> tuple[CropSet, list[dict[str, object]]]:
        out = tmp_path / "out"
        cut_unit(root, out, how, unit)
        return CropSet(out, pq.read_table(out / "units/unit.parquet")), json.loads(
            (out / "units/unit.json").read_text()
        )

    return cut


def pictures_of(
    picture: NDArray[np.uint8], towards: tuple[int, int] = FACE, frames: int = SHORT
) -> list[NDArray[np.uint8]]:
    return [moving(picture, n, towards, 320) for n in range(frames)]


def test_a_fake_is_cut_in_the_squares_of_its_original_on_the_same_frames(cut: Cut) -> None:
    crops, remarks = cut("real_0.mp4", "fake_0_0.mp4", "fake_0_1.mp4")
    assert remarks == [] and crops.table.schema.equals(SCHEMA)
    assert list(crops.column("frame_index")) == [0, 6, 12, 18] * 3
    rows = crops.original_rows
    assert list(rows) == [-1] * 4 + [0, 1, 2, 3] * 2
    boxes = crops.table.column("crop_box").to_pylist()
    assert all(boxes[i] == boxes[rows[i]] for i in range(4, 12))
    for row in range(4, 12):
        mask, real = crops.mask(row), crops.crop(int(rows[row])).astype(int)
        assert mask is not None and 0.05 < mask.mean() < 0.6
        apart = np.abs(crops.crop(row) - real).mean(axis=2)
        assert apart[mask].mean() > 3 * apart[~mask].mean()


def test_the_face_box_and_the_points_lie_on_the_face_of_the_crop(cut: Cut) -> None:
    crops, _ = cut("real_0.mp4")
    x0, y0, x1, y1 = crops.face_boxes[0]
    assert 20 < x0 < x1 < 204 and 10 < y0 < y1 < 214
    left_eye, right_eye, _, left_mouth, _ = crops.points[0]
    assert left_eye[0] < 112 < right_eye[0] and left_mouth[1] > left_eye[1] + 40
    assert not crops.column("mono").any() and list(crops.column("mask_area")) == [0, 0, 0, 0]


def test_a_fake_of_another_size_gets_the_scaled_box_and_no_mask(cut: Cut, root: Path) -> None:
    picture = with_another_face(astronaut())
    write_clip(root / "small.mp4", (cv2.resize(f, (160, 180)) for f in pictures_of(picture, frames=24)))
    crops, remarks = cut("real_0.mp4", "small.mp4")
    assert [(r["reason"], r["kept"]) for r in remarks] == [
        ("another size than its original: box scaled, mask unknown", True)
    ]
    assert len(crops) == 8 and crops.mask(4) is None and np.isnan(crops.column("mask_area")[4:].astype(float)).all()
    boxes = np.array(crops.table.column("crop_box").to_pylist())
    assert np.abs(boxes[:4] / 2 - boxes[4:]).max() <= 2
    blurred = [cv2.blur(crops.crop(row), (31, 31)).astype(int) for row in (0, 4)]
    assert np.abs(blurred[0] - blurred[1]).mean() < 12, "the same view in another size"


def test_a_fake_of_another_shape_is_looked_at_by_itself(cut: Cut, root: Path) -> None:
    picture = with_another_face(astronaut())
    write_clip(root / "wide.mp4", (moving(picture, n, FACE, 480) for n in range(SHORT)))
    crops, remarks = cut("real_0.mp4", "wide.mp4")
    assert remarks[0]["reason"] == "another shape than its original: own boxes, mask unknown"
    assert crops.fake.sum() == 4 and crops.mask(4) is None


def test_a_fake_that_equals_its_original_is_left_out(cut: Cut, root: Path) -> None:
    shutil.copy(root / "real_0.mp4", root / "same.mp4")
    crops, remarks = cut("real_0.mp4", "same.mp4")
    assert not crops.fake.any()
    assert [(r["video"], r["reason"], r["detail"], r["kept"]) for r in remarks] == [
        ("same.mp4", "frames whose face equals the original's, left out", "4 of 4 frames", False)
    ]


def test_a_fake_that_ends_early_gives_the_frames_it_has(cut: Cut, root: Path) -> None:
    picture = with_another_face(astronaut())
    write_clip(root / "short.mp4", iter(pictures_of(picture, frames=10)))
    crops, remarks = cut("real_0.mp4", "short.mp4")
    assert list(crops.column("frame_index")[crops.fake]) == [0, 6]
    assert [(r["reason"], r["detail"], r["kept"]) for r in remarks] == [
        ("frames that do not line up with the original's, left out", "2 of 4 frames", True)
    ]


def test_frames_of_another_time_are_no_twins_whatever_their_number(
    cut: Cut, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farm.samples.FRAME_RATE", 12)
    write_clip(root / "slow.mp4", iter(pictures_of(with_another_face(astronaut()), frames=24)))
    crops, remarks = cut("real_0.mp4", "slow.mp4")
    assert list(crops.column("frame_index")[crops.fake]) == [0]
    assert [(r["detail"], r["kept"]) for r in remarks] == [("3 of 4 frames", True)]


def test_a_video_without_a_face_and_an_unreadable_one_are_remarked(cut: Cut, root: Path) -> None:
    write_clip(root / "no_face.mp4", iter(pictures_of(astronaut(), SUIT)))
    (root / "broken.mp4").write_bytes((root / "real_0.mp4").read_bytes()[:3000])
    crops, remarks = cut("no_face.mp4", "broken.mp4")
    assert len(crops) == 0
    assert [(r["video"], r["reason"], r["kept"]) for r in remarks] == [
        ("no_face.mp4", "no face found", False),
        ("broken.mp4", "its original gave no crops: mask unknown", True),
        ("broken.mp4", "unreadable", False),
    ]


def test_a_fake_whose_original_cannot_be_read_is_cut_by_itself(cut: Cut, root: Path) -> None:
    (root / "real_0.mp4").write_bytes(b"no video")
    crops, remarks = cut("real_0.mp4", "fake_0_0.mp4")
    assert crops.fake.all() and len(crops) == 4 and crops.mask(0) is None
    assert [r["reason"] for r in remarks] == ["unreadable", "its original gave no crops: mask unknown"]


def test_an_unreadable_fake_does_not_cost_its_original(cut: Cut, root: Path) -> None:
    (root / "fake_0_0.mp4").write_bytes(b"")
    crops, remarks = cut("real_0.mp4", "fake_0_0.mp4")
    assert len(crops) == 4 and not crops.fake.any()
    assert [(r["video"], r["reason"]) for r in remarks] == [("fake_0_0.mp4", "unreadable")]


def test_a_video_with_fewer_frames_than_asked_for_gives_all_it_has(cut: Cut, root: Path) -> None:
    write_clip(root / "three.mp4", iter(pictures_of(astronaut(), frames=3)))
    crops, _ = cut("three.mp4", how=replace(HOW, frames=10))
    assert list(crops.column("frame_index")) == [0, 1, 2]


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (astronaut()[250:500, 250:500], "no face found"),
        (None, "not a readable picture"),
    ],
    ids=["no face", "no picture"],
)
def test_pictures_to_learn_nothing_from_are_remarked(
    cut: Cut, root: Path, picture: NDArray[np.uint8] | None, reason: str
) -> None:
    (root / "p.png").write_bytes(b"" if picture is None else cv2.imencode(".png", picture)[1].tobytes())
    crops, remarks = cut("p.png", pictures=True)
    assert len(crops) == 0 and [r["reason"] for r in remarks] == [reason]


def test_an_engraving_is_left_out_and_a_portrait_is_one_frame(cut: Cut, root: Path) -> None:
    grey = cv2.cvtColor(cv2.resize(astronaut(), (2048, 2048)), cv2.COLOR_RGB2GRAY)
    screen = 127 * (1 + np.sin(np.arange(2048) * np.pi / 3)[:, None] * np.sin(np.arange(2048) * np.pi / 3)[None])
    cv2.imwrite(str(root / "print.png"), np.where(grey > screen, 255, 0).astype(np.uint8))
    cv2.imwrite(str(root / "portrait.png"), np.ascontiguousarray(astronaut()[:, :, ::-1]))
    _, remarks = cut("print.png", pictures=True)
    assert [r["reason"] for r in remarks] == ["engraving or coarse print"]
    crops, remarks = cut("portrait.png", pictures=True)
    assert remarks == [] and len(crops) == 1 and crops.crop(0).shape == (224, 224, 3)


def test_the_largest_face_is_followed_and_after_a_cut_the_largest_is_taken() -> None:
    def face(x: float, side: float) -> Box:
        return Box(x, 0, x + side, side)

    hero, extra, elsewhere = face(100, 50), face(300, 52), face(600, 30)
    frames = [[face(90, 48), extra], [], [face(95, 100)], [elsewhere, face(700, 20)], [face(610, 31), face(100, 60)]]
    chosen = one_per_frame(frames, lambda box: box)
    assert chosen == [extra, face(95, 100), elsewhere, face(610, 31)]
    near = one_per_frame([[hero, extra], [face(105, 70), extra]], lambda box: box)
    assert near == [hero, face(105, 70)], "not the larger one far away"
    assert one_per_frame([[], []], lambda box: box) == []
