"""Videos of one face are found alike by the network the user names. The network here is a coarse mosaic of colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner
from unit.trainer.conftest import crop_row
from unit.trainer.drawn_faces import FIVE_POINTS, draw_face

from farm.errors import BadInput, BadModel
from trainer.cli import app
from trainer.face_embedding import ALIGNED_POINTS, FaceEmbedding, aligned, same_faces, video_embeddings
from trainer.manifest import CropSet, write_manifest, write_shard
from trainer.splits import Split


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX "embedding": the face's mean colours in 7 x 7 fields."""
    nodes = [
        helper.make_node("AveragePool", ["face"], ["fields"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Flatten", ["fields"], ["embedding"]),
    ]
    face = helper.make_tensor_value_info("face", TensorProto.FLOAT, ["n", 3, 112, 112])
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 147])
    model = helper.make_model(
        helper.make_graph([*nodes], "mosaic", [face], [embedding]), opset_imports=[helper.make_opsetid("", 13)]
    )
    file = tmp_path_factory.mktemp("model") / "mosaic.onnx"
    onnx.save(model, str(file))
    return file


@pytest.fixture
def people(tmp_path: Path) -> CropSet:
    """Videos a0, a1, b0, b1 of two people in two frames, named as nobody's relatives; and one without points."""
    rows = []
    for video, seed in (("a0", 1), ("b0", 2), ("a1", 1), ("b1", 2), ("nobody", 3)):
        light = 12 * int(video[-1] == "1")
        frames = np.stack([(draw_face(seed).astype(int) + light + f).clip(0, 255).astype(np.uint8) for f in (0, 3)])
        write_shard(tmp_path, video, frames, None)
        points = None if video == "nobody" else FIVE_POINTS.ravel().tolist()
        rows += [crop_row(video, frame_index=f, row=f, points=points) for f in range(2)]
    write_manifest(tmp_path, rows)
    return CropSet.open(tmp_path)


def test_two_videos_of_one_face_are_found_and_others_are_not(people: CropSet, mosaic: Path) -> None:
    names, embeddings = video_embeddings([people], FaceEmbedding(mosaic))
    assert names == ["a0", "a1", "b0", "b1"] and embeddings.shape == (4, 147)
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    assert same_faces(names, embeddings, above=0.95) == [("a0", "a1"), ("b0", "b1")]
    assert same_faces(names, embeddings, above=1.1) == []


def test_a_split_with_an_embedding_keeps_people_together(people: CropSet, mosaic: Path) -> None:
    command = ["split", str(people.folder), "--face-embedding", str(mosaic), "--same-face-above", "0.95"]
    assert CliRunner().invoke(app, command).exit_code == 0
    split = Split.open(people.folder)
    assert split.components["a0"] == split.components["a1"] != split.components["b0"]
    assert split.policy.same_face_links == 2


def test_an_aligned_face_has_its_eyes_where_the_network_wants_them() -> None:
    crop = np.full((224, 224, 3), 200, np.uint8)
    x, y = FIVE_POINTS[0].astype(int)
    crop[y - 4 : y + 5, x - 4 : x + 5] = 0
    face = aligned(crop, FIVE_POINTS)
    assert face is not None and face.shape == (112, 112, 3)
    dark = np.argwhere(face[:, :, 0] < 60).mean(axis=0)[::-1]
    assert np.abs(dark - ALIGNED_POINTS[0]).max() < 4


def test_points_that_fall_together_align_nothing() -> None:
    assert aligned(draw_face(0), np.zeros((5, 2), np.float32)) is None


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no network")
    with pytest.raises(BadModel, match="no ONNX network"):
        FaceEmbedding(tmp_path / "x.onnx")


def test_a_network_that_gives_no_embedding_is_refused(tmp_path: Path) -> None:
    face = helper.make_tensor_value_info("face", TensorProto.FLOAT, ["n", 3, 112, 112])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 3, 112, 112])
    graph = helper.make_graph([helper.make_node("Relu", ["face"], ["out"])], "relu", [face], [out])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), str(tmp_path / "relu.onnx"))
    with pytest.raises(BadModel, match="an embedding"):
        FaceEmbedding(tmp_path / "relu.onnx").embed(np.zeros((2, 112, 112, 3), np.uint8))


def test_a_set_without_points_cannot_be_embedded(tmp_path: Path, mosaic: Path) -> None:
    write_manifest(tmp_path, [crop_row("v", points=None)])
    with pytest.raises(BadInput, match="five points"):
        video_embeddings([CropSet.open(tmp_path)], FaceEmbedding(mosaic))
