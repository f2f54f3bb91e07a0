"""The arithmetic of the benchmark that compares a scan with the seed's way, and its count of CPU-seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.scan_vs_seed import Way, auc, difference_interval, paired_scores

ROOT = Path(__file__).parents[2]
BURN = "import time\nwhile time.process_time() < 0.4: pass\n"


def test_auc_is_the_share_of_fakes_that_score_above_a_real_one() -> None:
    assert auc(np.array([[0.1, 0.9], [0.2, 0.8]])) == 1.0
    assert auc(np.array([[0.9, 0.1], [0.8, 0.2]])) == 0.0
    assert auc(np.array([[0.5, 0.5], [0.5, 0.5]])) == 0.5
    assert auc(np.array([[0.1, 0.3], [0.4, 0.6]])) == 0.75


def test_two_ways_that_say_the_same_do_not_differ() -> None:
    scores = np.random.default_rng(0).random((11, 2))
    assert difference_interval(scores, scores) == (0.0, 0.0)


def test_a_way_that_is_always_right_differs_from_one_that_is_always_wrong() -> None:
    right = np.tile([0.1, 0.9], (11, 1))
    assert difference_interval(right, right[:, ::-1]) == (1.0, 1.0)


def test_scores_stand_by_pair_and_a_clip_without_a_face_is_the_least_suspicious() -> None:
    way = Way({"a_real.mp4": 0.2, "a_fake.mp4": 0.7, "b_real.mp4": None, "b_fake.mp4": 0.6}, 1.0, {})
    clips = [Path(name) for name in way.scores]
    np.testing.assert_array_equal(paired_scores(way, clips), [[0.2, 0.7], [0.0, 0.6]])


OUTLIVES = "subprocess.Popen([sys.executable, '-c', burn], start_new_session=True)"
KILLED = """
child = subprocess.Popen([sys.executable, '-c', burn + 'print(flush=True); time.sleep(60)'], stdout=subprocess.PIPE)
child.stdout.readline()
child.kill()
child.wait()
"""
GRANDCHILD = """
middle = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {burn!r}])"
subprocess.run([sys.executable, '-c', middle])
"""


@pytest.mark.parametrize(
    "starts", [OUTLIVES, KILLED, GRANDCHILD], ids=["outlives its parent", "is killed", "is nobody's"]
)
def test_a_process_is_counted_that(starts: str) -> None:
    command = f"import subprocess, sys\nburn = {BURN!r}\n{starts}"
    count = f"from bench.cpu_seconds import run_counted; import sys; print(run_counted([sys.executable, '-c', {command!r}]).cpu_seconds)"
    done = subprocess.run([sys.executable, "-c", count], capture_output=True, text=True, check=True, cwd=ROOT)
    assert float(done.stdout) > 0.4


def test_without_clips_it_says_what_to_give_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.scan_vs_seed", tmp_path], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 1
    assert "give the folder of the pair clips" in done.stderr
