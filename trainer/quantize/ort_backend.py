"""int8 weights for the onnx engine, by ONNX Runtime's static quantization: U8 features, S8 weights per channel.

Weights use 7 bits (`reduce_range`): without VNNI a processor adds two U8 x S8 products in 16 bits, and 8-bit weights saturate there.
The 1 x 1 convolutions that end the heads stay fp32, as in `nncf_backend`.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from farm.contracts import ModelCard
from farm.errors import EngineMissing
from trainer.quantize.made import Made
from workers.engines.base import network_input


class _Crops:
    """Hands ONNX Runtime's calibration one crop at a time."""

    def __init__(self, crops: NDArray[np.uint8], card: ModelCard) -> None:
        self._inputs: Iterator[dict[str, NDArray[np.float32]]] = (
            {card.input_name: network_input(crops[at : at + 1], card)} for at in range(len(crops))
        )

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._inputs, None)


def make(weights: Path, card: ModelCard, crops: NDArray[np.uint8]) -> Made:
    """Quantize an ONNX file on (N, S, S, 3) uint8 crops. Raises EngineMissing."""
    try:
        import onnx
        import onnxruntime
        from onnxruntime import quantization
    except ImportError as error:
        raise EngineMissing(f"quantizing needs onnx and ONNX Runtime ({error}): run `make install-trainer`") from error
    graph = onnx.load(weights)
    with tempfile.TemporaryDirectory() as folder, _quietly():
        out = Path(folder) / "int8.onnx"
        quantization.quantize_static(
            graph,
            out,
            _Crops(crops, card),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            nodes_to_exclude=_pointwise(graph),
            extra_options={"CalibMovingAverage": True, "ActivationSymmetric": False},
        )
        return Made(
            out.read_bytes(), ".onnx", f"onnxruntime {onnxruntime.__version__}, U8S8, 7-bit weights per channel"
        )


@contextmanager
def _quietly() -> Iterator[None]:
    """The quantizer advises on preparing graphs, which those of `trainer export` do not need, by the root logger."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)


def _pointwise(graph: object) -> list[str]:
    """Names of the 1 x 1 convolutions: in a U-YNet the last layers of its two heads."""
    shapes = {one.name: list(one.dims) for one in graph.graph.initializer}  # type: ignore[attr-defined]
    nodes = graph.graph.node  # type: ignore[attr-defined]
    return [node.name for node in nodes if node.op_type == "Conv" and shapes.get(node.input[1], [])[2:] == [1, 1]]
