"""An ONNX graph freed from the size it was exported with."""

import numpy as np
import onnxruntime
import pytest

from farm.errors import BadModel
from farm.media.centerface import INPUT, OUTPUTS, find_weights
from farm.media.onnx_graph import free_sizes


@pytest.fixture(scope="module")
def weights() -> bytes:
    return find_weights().read_bytes()


def session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def test_the_freed_graph_answers_as_the_fixed_one_does(weights: bytes) -> None:
    picture = np.random.default_rng(1).uniform(0, 255, (10, 3, 32, 32)).astype(np.float32)
    fixed = session(weights).run(OUTPUTS, {INPUT: picture})
    freed = session(free_sizes(weights, INPUT)).run(OUTPUTS, {INPUT: picture})
    for a, b in zip(fixed, freed, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_the_freed_graph_takes_any_size_and_has_one_input(weights: bytes) -> None:
    freed = session(free_sizes(weights, INPUT))
    assert [i.name for i in freed.get_inputs()] == [INPUT]
    for height, width in ((64, 96), (160, 32)):
        heat = freed.run(OUTPUTS, {INPUT: np.zeros((1, 3, height, width), np.float32)})[0]
        assert heat.shape == (1, 1, height // 4, width // 4)


@pytest.mark.parametrize("model", [b"\x3a\xff\xff\x03abc", b"\x3a", b"\x3b\x00", b"\x3a\x03\x5a\x01\x12"])
def test_a_damaged_file_is_refused(model: bytes) -> None:
    with pytest.raises(BadModel, match="does not parse"):
        free_sizes(model, INPUT)
