"""The bench that shows what a leaking split flatters holds out what it says it holds out."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from bench import supervised_pairs as bench
from trainer.manifest import CropSet
from trainer.measure import auc


def test_whole_groups_are_held_out_and_frames_are_not(aligned: Path) -> None:
    crops = CropSet.open(aligned)
    fakes = np.flatnonzero(crops.original_rows >= 0)
    groups = crops.column("group")[fakes]
    by_group, by_frame = (bench.folds_of(crops, fakes, way, seed=0) for way in ("group", "frame"))
    assert all(len({*by_group[groups == group]}) == 1 for group in np.unique(groups))
    assert any(len({*by_frame[groups == group]}) > 1 for group in np.unique(groups))
    assert set(by_group) == set(by_frame) == {0, 1, 2}


def test_what_a_way_scores_above_whole_groups_is_told_and_a_finished_fold_is_not_trained_again(
    aligned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [f"--data={aligned}", "--width=1", "--images=16", f"--out={tmp_path / 'folds.json'}", "--ways"]
    monkeypatch.setattr(sys, "argv", ["bench", *asked, "group", "frame"])
    bench.main()
    first = capsys.readouterr().out.splitlines()[-1]
    assert '"frame above group": {"frame_auc": [' in first
    monkeypatch.setattr(bench, "train", None)
    bench.main()
    assert capsys.readouterr().out.splitlines()[-1] == first


def test_a_regression_on_features_tells_apart_what_one_feature_tells_apart(aligned: Path) -> None:
    crops = CropSet.open(aligned)
    fakes = np.flatnonzero(crops.original_rows >= 0)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, len(fakes), 40))
    chance = bench.score_head(features, crops, fakes, "group", 0)
    features[1, :, 7] += 6.0
    told = bench.score_head(features, crops, fakes, "group", 0)
    assert 0.2 < auc(*chance) < 0.8 and auc(*told) > 0.9


def test_the_features_are_those_of_the_crops_pixels(
    aligned: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["bench", f"--data={aligned}", "--width=1", "--head-only", "--ways", "group", "frame"]
    )
    bench.main()
    assert '"frame above group": {"frame_auc": [' in capsys.readouterr().out
    crops = CropSet.open(aligned)
    fakes = np.flatnonzero(crops.original_rows >= 0)
    options = bench.Options(aligned, 2, 16, 1, 1, ["group"], None, True, None)
    assert bench.features_of(options, crops, fakes).shape == (2, len(fakes), 62)
