"""What leaves the trainer is what was trained, and its card says how to use it."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from farm.contracts import ModelCard
from farm.errors import BadModel
from trainer import export
from trainer.calibrate import Calibration
from trainer.manifest import CROP_MARGIN
from trainer.model import UYNet

SHIPPED = Path(__file__).parents[3] / "workers" / "models"
LARGEST_BYTES = 16 * 1024 * 1024
"""What the project ships must not be larger; what is exported may."""
CALIBRATION = Calibration(1.0, 0.0, 0.9, 0.01, 0.1, {})


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> tuple[UYNet, export.Exported]:
    torch.manual_seed(0)
    model = UYNet(width=2).eval()
    return model, export.export_onnx(model, tmp_path_factory.mktemp("weights") / "tiny.onnx")


@pytest.fixture(scope="module")
def exported(graphs: tuple[UYNet, export.Exported]) -> tuple[UYNet, Path]:
    return graphs[0], graphs[1].whole


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_exported_graph_says_what_torch_says_at_any_batch_size(exported: tuple[UYNet, Path], batch: int) -> None:
    model, path = exported
    image = torch.randn(batch, 3, 224, 224)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = model(image)
    said = session.run(["class_logit", "mask_logit"], {"image": image.numpy()})
    for ours, theirs in zip(said, expected, strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs.numpy()).max() < 1e-4


def test_the_graph_has_no_sigmoid_and_nothing_of_the_training(exported: tuple[UYNet, Path]) -> None:
    import onnx

    operators = {node.op_type for node in onnx.load(exported[1]).graph.node}
    assert not operators & {"Sigmoid", "Dropout", "ReduceMean", "GlobalAveragePool"}


def test_a_graph_says_nothing_of_the_machine_that_made_it(exported: tuple[UYNet, Path]) -> None:
    here = str(Path(export.__file__).parent).encode()
    assert here not in exported[1].read_bytes()
    assert b"site-packages" not in (SHIPPED / "uynet-w16.onnx").read_bytes()


@pytest.mark.parametrize("difference", [0.1, float("nan")])
def test_weights_that_disagree_with_torch_do_not_replace_good_ones(tmp_path: Path, difference: float) -> None:
    good, part = tmp_path / "w.onnx", tmp_path / "w.onnx.part"
    good.write_bytes(b"good")
    part.write_bytes(b"bad")
    with pytest.raises(BadModel, match="differs from torch"):
        export.accept({good: part}, [difference])
    assert good.read_bytes() == b"good" and not part.exists()


def test_the_two_parts_together_say_what_the_whole_says(graphs: tuple[UYNet, export.Exported]) -> None:
    made = graphs[1]
    assert 0 <= made.difference <= export.TOLERANCE and 0 <= made.parts_difference <= export.TOLERANCE
    image = np.random.default_rng(3).normal(0, 1, (3, 3, 224, 224)).astype(np.float32)
    sessions = [
        onnxruntime.InferenceSession(str(p), providers=["CPUExecutionProvider"])
        for p in (made.whole, made.encoder, made.decoder)
    ]
    wanted = sessions[0].run(["class_logit", "mask_logit"], {"image": image})
    logit, *features = sessions[1].run(["class_logit", *export.FEATURES], {"image": image})
    assert [f.shape[1:] for f in features] == [(2 << n, 224 >> n, 224 >> n) for n in range(5)]
    (mask,) = sessions[2].run(["mask_logit"], dict(zip(export.FEATURES, features, strict=True)))
    assert np.abs(logit - wanted[0]).max() < 1e-4 and np.abs(mask - wanted[1]).max() < 1e-4


def test_a_graph_that_says_something_else_than_torch_is_found_out(graphs: tuple[UYNet, export.Exported]) -> None:
    torch.manual_seed(1)
    other = export._seen(export._Shipped(UYNet(width=2).eval()), [torch.randn(2, 3, 224, 224)])
    ends = (["image"], ["class_logit", "mask_logit"])
    assert export.difference_to_torch(graphs[1].whole, other, *ends) > export.TOLERANCE


def test_a_card_names_its_weights_and_loads_again(exported: tuple[UYNet, Path]) -> None:
    _, path = exported
    card = export.write_card(
        path, 2, "9.9", CALIBRATION, {"data": "none"}, {"validation": {}}, ("a note",), demonstration=True
    )
    assert ModelCard.load(path.with_suffix(".json")) == card
    assert dataclasses.replace(card, sha256="") != card
    assert card.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert card.demonstration and card.logit_polarity == "fake"


def test_the_shipped_card_belongs_to_the_shipped_weights() -> None:
    card = ModelCard.load(SHIPPED / "uynet-w16.json")
    weights = (SHIPPED / card.weights).read_bytes()
    assert card.sha256 == hashlib.sha256(weights).hexdigest()
    assert len(weights) <= LARGEST_BYTES
    assert card.width == 16 and card.crop_margin == CROP_MARGIN


def test_the_shipped_card_says_what_it_is_worth() -> None:
    card = ModelCard.load(SHIPPED / "uynet-w16.json")
    assert card.demonstration
    assert any("accuse" in note for note in card.notes)
    assert 0 < card.false_positive_rate <= 0.01
    assert card.training["images_seen"] > 0 and card.training["cpu_seconds"] > 0
    assert 0.5 < card.metrics["validation"]["frame_auc"] <= 1
    assert {"frame_auc", "video_auc", "video_auc_95"} <= card.metrics["swap_pairs"].keys()


def test_the_shipped_weights_run_as_their_card_says() -> None:
    card = ModelCard.load(SHIPPED / "uynet-w16.json")
    session = onnxruntime.InferenceSession(str(SHIPPED / card.weights), providers=["CPUExecutionProvider"])
    crops = np.random.default_rng(0).integers(0, 256, (2, 3, 224, 224)).astype(np.float32)
    image = crops * np.float32(card.input_scale) + np.float32(card.input_offset)
    class_logit, mask_logit = session.run([card.class_output, card.mask_output], {card.input_name: image})
    assert class_logit.shape == (2, 1) and mask_logit.shape == (2, 1, 224, 224)
    assert np.isfinite(class_logit).all() and np.isfinite(mask_logit).all()
