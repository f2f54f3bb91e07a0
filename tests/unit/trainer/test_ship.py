"""A checkpoint becomes a model with a card that is entitled to what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from farm.contracts import ModelCard
from farm.errors import BadInput
from trainer.checkpoint import begin, save
from trainer.config import Data, TrainConfig
from trainer.manifest import CropSet
from trainer.ship import Held, ship


@pytest.fixture
def checkpoint(tmp_path: Path, aligned: Path) -> Path:
    state = begin(TrainConfig((Data(str(aligned)),), name="tiny", version="3", width=2))
    state.facts = {"data": [], "leaks": 0, "code_version": "x"}
    save(state, tmp_path / "last.pt")
    return tmp_path / "last.pt"


def held(folder: Path) -> list[Held]:
    crops = CropSet.open(folder)
    return [Held("validation", crops, np.arange(len(crops)))]


def test_a_shipped_model_is_a_demonstration_with_its_figures_and_three_graphs(
    checkpoint: Path, aligned: Path, tmp_path: Path
) -> None:
    crops = CropSet.open(aligned)
    looked_at = [Held("swaps", crops, np.arange(len(crops)))]
    card = ship(checkpoint, tmp_path / "out", held(aligned), origin="drawn ones", looked_at=looked_at)
    assert ModelCard.load(tmp_path / "out" / "tiny.json") == card
    assert {p.name for p in (tmp_path / "out").glob("*.onnx")} == {
        "tiny.onnx",
        "tiny.encoder.onnx",
        "tiny.decoder.onnx",
    }
    assert card.demonstration and any("accuse" in note for note in card.notes)
    assert card.training["origin"] == "drawn ones" and card.version == "3"
    assert card.training["precision"] in ("bf16", "fp32")
    assert 0 <= card.metrics["validation"]["frame_auc"] <= 1
    assert card.metrics["onnx_difference"] < 1e-4
    (said,) = [note for note in card.notes if note.startswith("Looked at and never learnt from, swaps: 18 videos")]
    assert f"AUC by frame {card.metrics['swaps']['frame_auc']:.2f} (95 % " in said


def test_a_few_people_do_not_make_a_model_more_than_a_demonstration(
    checkpoint: Path, aligned: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="groups of people"):
        ship(checkpoint, tmp_path / "out", held(aligned), demonstration=False)
    assert not (tmp_path / "out").exists()


def test_a_network_at_chance_always_abstains_and_its_card_says_so(
    checkpoint: Path, aligned: Path, tmp_path: Path
) -> None:
    card = ship(checkpoint, tmp_path / "out", held(aligned))
    assert (card.threshold, card.real_below) == (1.0, 0.0)
    assert any(note.startswith("It always abstains: on validation its AUC") for note in card.notes)


def test_a_report_that_cannot_be_written_leaves_the_model_that_stood_there(
    checkpoint: Path, aligned: Path, tmp_path: Path
) -> None:
    ship(checkpoint, tmp_path / "out", held(aligned))
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (tmp_path / "report").write_text("a file")
    with pytest.raises(OSError, match="report"):
        ship(checkpoint, tmp_path / "out", held(aligned), version="4", report=tmp_path / "report")
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
