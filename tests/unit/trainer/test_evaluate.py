"""Figures of a prepared set, from any network."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from farm.errors import BadInput, BadModel
from trainer.checkpoint import begin, save
from trainer.compare import compare
from trainer.config import Data, TrainConfig
from trainer.evaluate import Evaluation, evaluate, figures, read_predictions, write_predictions
from trainer.evaluation_page import write_page
from trainer.manifest import CropSet
from trainer.scoring import Scorer, open_scorer


def oracle(crops: CropSet, wrong: int = 0) -> Scorer:
    """Knows the truth in the order of the rows, but for the first `wrong` fakes."""
    at = iter(range(len(crops)))
    spared = set(np.flatnonzero(crops.fake)[:wrong].tolist())

    def score(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        rows = [next(at, 0) for _ in pixels]
        masks = [crops.mask(row) for row in rows]
        known = np.stack([np.zeros((224, 224), bool) if m is None else m for m in masks])
        return np.array([3.0 if crops.fake[row] and row not in spared else -3.0 for row in rows]), known

    facts = {
        "model": "oracle",
        "version": "1",
        "engine": "none",
        "device": "none",
        "precision": "exact",
        "sha256": "0" * 64,
    }
    return Scorer(score, lambda: None, facts)


def scored(folder: Path, wrong: int = 0) -> tuple[CropSet, Evaluation]:
    crops = CropSet.open(folder)
    return crops, evaluate(crops, np.arange(len(crops)), oracle(crops, wrong), batch=3)


def test_an_oracle_is_right_everywhere(aligned: Path) -> None:
    _, found = scored(aligned)
    told = figures(found)
    assert (told["frame"]["auc"], told["video"]["auc"], told["frame"]["eer"], told["frame"]["wrong"]) == (1, 1, 0, 0)
    assert told["mask"]["iou"] == told["mask"]["dice"] == 1
    assert 0 < told["mask"]["ellipse_iou"] < 1


def test_mistakes_are_counted_and_cost_auc(aligned: Path) -> None:
    _, found = scored(aligned, wrong=2)
    told = figures(found)
    assert (told["frame"]["wrong"], told["frame"]["fakes_not_called_fake"], told["frame"]["reals_called_fake"]) == (
        2,
        2,
        0,
    )
    fakes = int(found.fake.sum())
    groups = told["by_group"].values()
    assert sum(one["crops"] - one["right"] for one in groups) == 2
    assert all(one["accuracy"] == one["right"] / one["crops"] for one in groups)
    assert told["frame"]["auc"] == pytest.approx(1 - 0.5 * 2 / fakes)  # two fakes tie with every real


def test_a_set_with_one_label_says_what_cannot_be_measured_and_stays_json(portraits: Path) -> None:
    _, found = scored(portraits)
    told = figures(found)
    assert told["frame"]["auc"] is None and told["mask"]["iou"] is None
    assert set(told["not_measured"]) == {"auc", "mask"}
    assert "NaN" not in json.dumps(told)


def test_a_side_without_crops_is_refused(aligned: Path) -> None:
    crops = CropSet.open(aligned)
    with pytest.raises(BadInput, match="no crop"):
        evaluate(crops, np.arange(0), oracle(crops))


def test_predictions_come_back_as_they_were_written(aligned: Path, tmp_path: Path) -> None:
    _, found = scored(aligned, wrong=1)
    write_predictions(found, tmp_path / "predictions.parquet")
    assert json.dumps(figures(read_predictions(tmp_path))) == json.dumps(figures(found))
    with pytest.raises(BadInput, match="no predictions"):
        read_predictions(tmp_path / "none")


def test_two_evaluations_are_compared_pair_by_pair(aligned: Path) -> None:
    (_, good), (_, worse) = scored(aligned), scored(aligned, wrong=2)
    told = compare(good, worse)
    assert told["frame_auc"]["difference"] < 0 and told["mask_iou"]["difference"] == 0
    assert compare(good, good)["frame_auc"]["difference_95"] == [0, 0]


def test_evaluations_of_other_crops_are_not_compared(aligned: Path) -> None:
    _, found = scored(aligned)
    other = dataclasses.replace(found, frames=found.frames + 1)
    with pytest.raises(BadInput, match="different crops"):
        compare(found, other)


def test_the_page_holds_everything_it_shows(aligned: Path, tmp_path: Path) -> None:
    crops, found = scored(aligned, wrong=1)
    told = figures(found) | {"scored_by": oracle(crops).facts, "set": "<drawn>", "side": "all"}
    write_page(told, found, crops, np.arange(len(crops)), oracle(crops), tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text()
    assert "&lt;drawn&gt;" in page and "data:image/png;base64," in page and "<polyline" in page
    assert "http://" not in page and "https://" not in page


def test_a_checkpoint_scores_as_its_averaged_network_does(aligned: Path, tmp_path: Path) -> None:
    state = begin(TrainConfig((Data("nowhere"),), width=2))
    save(state, tmp_path / "last.pt")
    crops = CropSet.open(aligned).crop(0)[None]
    logits, masks = open_scorer(str(tmp_path / "last.pt"), "").score(crops)
    with torch.no_grad():
        image = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 64 - 2
        expected = state.average.eval()(image)
    assert logits[0] == pytest.approx(float(expected.class_logit), abs=1e-5)
    assert (masks[0] == (expected.mask_logit[0, 0] > 0).numpy()).mean() > 0.999


def test_a_checkpoint_that_answers_nan_is_found_out(aligned: Path, tmp_path: Path) -> None:
    state = begin(TrainConfig((Data("nowhere"),), width=2))
    with torch.no_grad():
        state.average.class_head.bias.fill_(float("nan"))
    save(state, tmp_path / "last.pt")
    with pytest.raises(BadModel, match="NaN"):
        open_scorer(str(tmp_path / "last.pt"), "torch").score(CropSet.open(aligned).crop(0)[None])


def test_a_model_that_is_not_there_is_named() -> None:
    with pytest.raises(BadInput, match="uynet-w99"):
        open_scorer("uynet-w99", "onnx")
