"""A training that begins with the weights of another says what the other says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from unit.trainer.drawn_faces import draw_face

from farm.errors import BadInput, BadModel
from trainer.checkpoint import State, begin, read_checkpoint, save
from trainer.config import TrainConfig
from trainer.dataset import to_input
from trainer.manifest import CropSet
from trainer.splits import make_split
from trainer.start import start
from trainer.train import train
from workers.engines.weights import SHIPPED

CARD = SHIPPED / "uynet-w16.json"
RUN = {"epochs": 1, "epoch_images": 4, "pairs": 2, "loaders": 0, "validation_images": 2, "precision": "fp32"}


def fresh(width: int) -> State:
    return begin(TrainConfig.from_values({"width": width, "data": [{"manifest": "set"}]}))


def pictures(*seeds: int) -> torch.Tensor:
    faces = np.stack([draw_face(seed) for seed in seeds])
    return to_input(torch.from_numpy(faces).permute(0, 3, 1, 2)).contiguous()


def differs(one: torch.Tensor, other: np.ndarray) -> float:
    return float(np.abs(one.detach().numpy() - other).max())


@pytest.fixture(scope="module")
def from_card() -> State:
    state = fresh(16)
    start(state, CARD, pictures(1, 2, 3, 4))
    return state


def test_it_predicts_what_the_cards_graph_predicts_on_pictures_it_has_not_seen(from_card: State) -> None:
    session = onnxruntime.InferenceSession(SHIPPED / "uynet-w16.onnx", providers=["CPUExecutionProvider"])
    classes, masks = session.run(["class_logit", "mask_logit"], {"image": pictures(7, 8).numpy()})
    with torch.no_grad():
        said = from_card.average.eval()(pictures(7, 8))
    assert differs(said.class_logit, classes) < 1e-4 and differs(said.mask_logit, masks) < 1e-4


def test_it_says_the_same_when_it_trains_on_the_pictures_that_set_its_norms(from_card: State) -> None:
    model = from_card.model
    with torch.no_grad():
        predicted = model.eval()(pictures(1, 2, 3, 4))
        model.train().dropout.eval()
        trained = model(pictures(1, 2, 3, 4))
    assert differs(trained.class_logit, predicted.class_logit.numpy()) < 1e-3
    assert differs(trained.mask_logit, predicted.mask_logit.numpy()) < 1e-3


def test_it_remembers_what_it_began_with(from_card: State) -> None:
    card = json.loads(CARD.read_text())
    assert from_card.facts["started_from"] == {key: card[key] for key in ("name", "version", "sha256")}


def test_a_training_begins_with_a_checkpoints_average(aligned: Path, tmp_path: Path) -> None:
    other = fresh(2)
    torch.nn.init.constant_(other.average.class_head.bias, 5.0)
    other.step, other.facts = 3, {"started_from": {"name": "before"}}
    save(other, tmp_path / "other.pt")
    make_split([CropSet.open(aligned)], validation=0.4).save(tmp_path)
    data = {"manifest": str(aligned), "split": str(tmp_path)}
    values = {"width": 2, "data": [data], "log": {"tensorboard": False}, "optimiser": {"learning_rate": 1e-9}}
    config = TrainConfig.from_values(values | {"run": RUN | {"start_from": "other.pt"}}, tmp_path)
    train(config, tmp_path / "run")
    last = read_checkpoint(tmp_path / "run" / "last.pt")
    assert last["model"]["class_head.bias"].item() == pytest.approx(5.0)
    from_where = last["facts"]["started_from"]
    assert from_where["name"] == "uynet" and from_where["images_seen"] == 96
    assert from_where["started_from"] == {"name": "before"}


def test_another_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"base width 16, the training's is 2; set width = 16"):
        start(fresh(2), CARD, pictures(1))
    save(fresh(4), tmp_path / "four.pt")
    with pytest.raises(BadInput, match="base width 4"):
        start(fresh(2), tmp_path / "four.pt", pictures(1))


def test_a_card_without_its_onnx_file_is_refused(tmp_path: Path) -> None:
    shutil.copy(CARD, tmp_path)
    with pytest.raises(BadInput, match=r"uynet-w16\.onnx: a training starts from"):
        start(fresh(16), tmp_path / CARD.name, pictures(1))


def test_a_damaged_graph_and_that_of_another_network_are_refused(tmp_path: Path) -> None:
    import onnx

    shutil.copy(CARD, tmp_path)
    (tmp_path / "uynet-w16.onnx").write_bytes(b"no graph")
    with pytest.raises(BadModel, match="damaged or no ONNX"):
        start(fresh(16), tmp_path / CARD.name, pictures(1))
    graph = onnx.load(SHIPPED / "uynet-w16.onnx")
    del graph.graph.node[0]
    onnx.save(graph, tmp_path / "uynet-w16.onnx")
    with pytest.raises(BadModel, match=r"lacks the weights of encoder\.0\.0"):
        start(fresh(16), tmp_path / CARD.name, pictures(1))


def test_something_that_is_neither_checkpoint_nor_card_is_refused() -> None:
    with pytest.raises(BadInput, match=r"run\.start_from is '.*weights\.onnx'"):
        TrainConfig.from_values({"data": [{"manifest": "set"}], "run": {"start_from": "weights.onnx"}})


def test_fakes_of_unseen_generators_cannot_be_trained_on() -> None:
    with pytest.raises(BadInput, match="stay out of training"):
        TrainConfig.from_values({"data": [{"manifest": "set", "fakes": {"unseen": 1.0}}]})
