"""A prepared set is measured alike on every engine of the farm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from contract.test_engines import model  # noqa: F401 -- fixture
from unit.trainer.conftest import crop_row

from farm.contracts import ModelCard
from trainer.evaluate import evaluate, figures
from trainer.manifest import CropSet, write_manifest, write_shard
from trainer.scoring import open_scorer

MIDDLE = np.zeros((224, 224), bool)
MIDDLE[60:160, 60:160] = True


@pytest.fixture
def dark_and_bright(tmp_path: Path) -> CropSet:
    """Two dark reals and a fake of each that is bright, with a red middle where its mask is."""
    folder, rows = tmp_path / "set", []
    folder.mkdir()
    for number in range(2):
        real, fake = f"r{number}.mp4", f"f{number}.mp4"
        write_shard(folder, real, np.full((1, 224, 224, 3), 40 + number, np.uint8), None)
        rows.append(crop_row(real))
        pixels = np.full((1, 224, 224, 3), 200, np.uint8)
        pixels[..., 0] = np.where(MIDDLE, 230, 90)
        write_shard(folder, fake, pixels, MIDDLE[None])
        rows.append(crop_row(fake, label="FAKE", original=real, method="swap", mask_area=float(MIDDLE.mean())))
    write_manifest(folder, rows)
    return CropSet.open(folder)


@pytest.mark.parametrize("engine", ["onnx", "openvino", "vart"])
def test_a_set_is_measured_on_every_engine_that_computes(
    engine: str,
    model: Callable[..., tuple[Path, ModelCard]],  # noqa: F811 -- the fixture
    dark_and_bright: CropSet,
) -> None:
    weights, card = model(engine)
    described = weights.with_suffix(".json")
    described.write_text(card.to_json())
    scorer = open_scorer(str(described), engine)
    try:
        found = evaluate(dark_and_bright, np.arange(len(dark_and_bright)), scorer)
    finally:
        scorer.close()
    told = figures(found)
    assert scorer.facts["engine"] == engine and scorer.facts["precision"] == ("fp32" if engine == "onnx" else "int8")
    assert (told["frame"]["auc"], told["frame"]["right"], told["frame"]["wrong"]) == (1, 4, 0)
    assert told["mask"]["iou"] > 0.99 and told["mask"]["area_on_reals"] == 0
