"""The stand-in card itself: its arithmetic against plain loops, and its traps, each in a process of its own."""

from __future__ import annotations

import json
import math
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from card_stand_in import FOLDER, known_network, python, write_xmodel
from stand_in import integer_network

OPEN = """
import sys, os
sys.path.insert(0, sys.argv[1])
import numpy as np, xir, vart
graph = xir.Graph.deserialize(sys.argv[2])
dpu = graph.get_root_subgraph().toposort_child_subgraph()[1]
runner = vart.Runner.create_runner(dpu, "run")
inputs = runner.get_input_tensors()
outputs = sorted(runner.get_output_tensors(), key=lambda tensor: len(tensor.name), reverse=True)
one = np.random.RandomState(0).randint(-128, 128, (4, 224, 224, 3)).astype(np.int8)
class_output, mask_output = np.zeros((4, 1, 1, 1), np.int8), np.zeros((4, 224, 224, 1), np.int8)
pair = [class_output if tensor.name == "class_fix" else mask_output for tensor in runner.get_output_tensors()]
def run(pixels):
    runner.wait(runner.execute_async([pixels], pair))
    return class_output.ravel().tolist(), int(mask_output.sum(dtype=np.int64))
"""
ABORTS = {
    "an unsigned array": "runner.execute_async([one.view(np.uint8)], pair)",
    "a float64 array": "runner.execute_async([one.astype(np.float64)], pair)",
    "a missing attribute": "dpu.get_attr('metadata')",
    "a missing file": "xir.Graph.deserialize('gone.xmodel')",
    "a corrupt file": "open('bad.xmodel', 'wb').write(b'bad'); xir.Graph.deserialize('bad.xmodel')",
    "another mode": "vart.Runner.create_runner(dpu, 'sim')",
    "a host subgraph": "vart.Runner.create_runner(graph.get_root_subgraph().toposort_child_subgraph()[0], 'run')",
    "no firmware": "del os.environ['XLNX_VART_FIRMWARE']; vart.Runner.create_runner(dpu, 'run')",
    "a firmware that is not there": "os.environ['XLNX_VART_FIRMWARE'] = 'gone.xclbin'; vart.Runner.create_runner(dpu, 'run')",
    "a second wait": "job = runner.execute_async([one], pair); runner.wait(job); runner.wait(job)",
    "a graph freed before its runner": "del dpu; del graph",
    "a runner freed with a job in flight": "runner.execute_async([one], pair); del runner, run",
}


EACH_IN_A_FORK = """
import json, tempfile, traceback
ends = {}
for name, case in json.loads(sys.argv[3]).items():
    words = tempfile.TemporaryFile()
    child = os.fork()
    if not child:
        os.dup2(words.fileno(), 2)
        exec(case)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    words.seek(0)
    ends[name] = (status, words.read().decode())
print(json.dumps(ends))
"""


def run(folder: Path, *code: str) -> subprocess.CompletedProcess[str]:
    weights, _ = write_xmodel(folder, known_network(), batch=4)
    (folder / "x").touch()
    environment = {"XLNX_VART_FIRMWARE": "x", "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [python(), "-c", OPEN + code[0], str(FOLDER), str(weights), *code[1:]]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """How the process ended after each wrong call: its wait status, and its stderr."""
    done = run(tmp_path_factory.mktemp("aborts"), EACH_IN_A_FORK, json.dumps({**ABORTS, "none": "run(one)"}))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("call", ABORTS)
def test_a_wrong_call_aborts_with_its_reason(ends: dict[str, tuple[int, str]], call: str) -> None:
    assert ends["none"] == [0, ""]
    assert ends[call][0] == signal.SIGABRT
    assert "Check failed" in ends[call][1]


def test_wrong_arrays_give_other_numbers_without_a_word(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        "wide = np.zeros((4, 224, 448, 3), np.int8); gaps = wide[:, :, ::2]; gaps[:] = one\n"
        "print(run(one) == run(one.copy()), run(one) == run(gaps), run(one) == run(one[:2].copy()), dpu.has_attr('metadata'))",
    )
    assert done.stdout.split() == ["True", "False", "False", "False"], done.stderr


def test_arrays_belong_to_the_card_until_the_wait(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        "whole = run(one)\njob = runner.execute_async([one], pair); one[:] = 0; runner.wait(job)\n"
        "print(int(mask_output.sum(dtype=np.int64)) == whole[1])",
    )
    assert done.stdout.split() == ["False"], done.stderr


def test_convolution_pooling_and_rounding_are_those_of_plain_loops() -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(-128, 128, (1, 6, 6, 2)).astype(np.int8)
    kernel, bias = rng.integers(-128, 128, (3, 3, 2, 2)).astype(np.int8), rng.integers(-500, 500, 2)
    expected, shift = np.zeros((1, 6, 6, 2), np.int64), 9
    for row, column, out in np.ndindex(6, 6, 2):
        total = int(bias[out])
        for dy, dx, channel in np.ndindex(3, 3, 2):
            y, z = row + dy - 1, column + dx - 1
            if 0 <= y < 6 and 0 <= z < 6:
                total += int(x[0, y, z, channel]) * int(kernel[dy, dx, channel, out])
        expected[0, row, column, out] = max(-128, min(127, math.floor(total / 2**shift + 0.5)))
    np.testing.assert_array_equal(integer_network.requantized(integer_network.conv(x, kernel, bias), shift), expected)
    raised = integer_network.raised(x, kernel[:2, :2], bias)
    assert raised[0, 5, 8, 1] == x[0, 2, 4].astype(int) @ kernel[1, 0, :, 1].astype(int) + bias[1]


def test_halves_are_rounded_up_for_activations_and_away_from_zero_for_weights() -> None:
    halves = np.array([-1.5, -0.5, 0.5, 1.5])
    assert integer_network.requantized(halves, 0).tolist() == [-1, 0, 1, 2]
    assert integer_network.rounded_weights(halves, 0).tolist() == [-2, -1, 1, 2]


def test_a_skip_connection_is_requantized_at_the_concat() -> None:
    values = {"up": (np.full((1, 1, 1, 1), 5, np.int8), 2), "skip": (np.full((1, 1, 1, 1), 101, np.int8), 6)}
    joined, fix_point = integer_network.apply(
        {"kind": "concat", "name": "both", "of": ["up", "skip"], "fix_point": 3}, {}, values
    )
    assert joined.ravel().tolist() == [10, 13]
    assert fix_point == 3
