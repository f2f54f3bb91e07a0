"""The bench that shows what a leaking split flatters holds out what it says it holds out."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from bench import supervised_pairs as bench
from trainer.manifest import CropSet


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
