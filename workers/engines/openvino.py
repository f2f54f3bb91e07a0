"""The int8 engine for Intel and AMD processors: OpenVINO on weights that NNCF quantized (`trainer quantize`).

The int8 weights of `uynet.onnx` are `int8/uynet.zip` with a card of their own, beside it or among the shipped models: OpenVINO's two
files, graph and constants, in one, so that one sha256 stands for them. An ONNX graph with QuantizeLinear nodes would be one file
too, but OpenVINO 2026.4 computes it wrongly: of W=16 weights it moved p_fake by .25 on average where ONNX Runtime, on the same
graph, and OpenVINO, on its own format, moved it by .01. Nothing is ever quantized, or left unquantized, behind the user's back: a
model without int8 weights is refused with the command that makes them.
"""

from __future__ import annotations

import io
import tempfile
import threading
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from farm.contracts import CROP_SIDE_PX, EngineSpec, ModelCard
from farm.errors import BadModel, EngineBusy, EngineMissing
from workers.engines.base import Engine, NetworkEngine
from workers.engines.weights import int8_weights

GRAPH, CONSTANTS = "network.xml", "network.bin"
"""What the zipped weights hold."""


class OpenVinoEngine(NetworkEngine):
    """A compiled network; each thread that calls has an inference request of its own."""

    def __init__(self, compiled: Any, card: ModelCard, spec: EngineSpec) -> None:
        super().__init__(card, spec)
        self._compiled: Any = compiled
        self._outputs = (compiled.output(card.class_output), compiled.output(card.mask_output))
        self._of_thread = threading.local()

    def run(self, planes: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
        compiled = self._compiled
        if compiled is None:
            raise EngineBusy("the openvino engine was closed")
        if not hasattr(self._of_thread, "request"):
            self._of_thread.request = compiled.create_infer_request()
        try:
            results = self._of_thread.request.infer([planes], share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise EngineBusy(f"OpenVINO stopped: {error}") from error
        return results[self._outputs[0]], results[self._outputs[1]]

    def close(self) -> None:
        super().close()
        self._compiled = None
        self._of_thread = threading.local()


def open_here(weights: Path, card: ModelCard, *, threads: int, device: str | None, rate: float | None) -> Engine:
    """Open the int8 weights of `card` and try one blank crop. Raises EngineMissing or BadModel."""
    core = _core()
    device = (device or "CPU").upper()
    if device not in core.available_devices:
        raise EngineMissing(f"OpenVINO finds no device {device!r} here, only {', '.join(core.available_devices)}")
    int8_path, int8_card = int8_weights(weights, card)
    network = _network(core, int8_path, int8_card)
    spec = EngineSpec("openvino", device.lower(), "int8", batch=1, weights_sha256=int8_card.sha256)
    try:
        compiled = core.compile_model(network, device, _options(device, threads))
    except RuntimeError as error:
        raise BadModel(f"OpenVINO cannot compile {int8_path} for {device}: {error}") from error
    engine = OpenVinoEngine(compiled, int8_card, spec)
    engine.try_blank()
    return engine


def _core() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise EngineMissing(f"the openvino engine needs OpenVINO ({error}): pip install 'openvino>=2026.4'") from error
    return openvino.Core()


def _options(device: str, threads: int) -> dict[str, Any]:
    """One stream, and no layer quietly computed in bfloat16 where the processor has it."""
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    return {**options, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1} if device == "CPU" else options


def _network(core: Any, weights: Path, card: ModelCard) -> Any:
    try:
        with zipfile.ZipFile(weights) as file:
            network = core.read_model(file.read(GRAPH), file.read(CONSTANTS))
    except (RuntimeError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise BadModel(f"OpenVINO cannot load {weights} of model {card.name}: {error}") from error
    _check(network, weights, card)
    network.reshape([1, 3, CROP_SIDE_PX, CROP_SIDE_PX])
    return network


def packed(network: Any) -> bytes:
    """An OpenVINO network as the one file that this engine opens; the same bytes for the same network."""
    import openvino

    file = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
        openvino.save_model(network, Path(folder) / GRAPH, compress_to_fp16=False)
        for name in (GRAPH, CONSTANTS):
            zipped.writestr(zipfile.ZipInfo(name), (Path(folder) / name).read_bytes(), zipfile.ZIP_DEFLATED)
    return file.getvalue()


def read_fp32(weights: Path) -> Any:
    """An ONNX file as an OpenVINO network, to be quantized. Raises EngineMissing."""
    return _core().read_model(weights.read_bytes())


def pointwise(network: Any) -> list[str]:
    """Names of the 1 x 1 convolutions: in a U-YNet the last layers of its two heads."""
    convolutions = (node for node in network.get_ops() if node.get_type_name() == "Convolution")
    return [node.get_friendly_name() for node in convolutions if list(node.input_value(1).get_shape())[2:] == [1, 1]]


def _check(network: Any, weights: Path, card: ModelCard) -> None:
    inputs = [tensor.any_name for tensor in network.inputs]
    outputs = [name for tensor in network.outputs for name in tensor.names]
    missing = [name for name in (card.class_output, card.mask_output) if name not in outputs]
    if inputs != [card.input_name] or missing:
        raise BadModel(
            f"model card {card.name} names input {card.input_name!r} and outputs {card.class_output!r}, {card.mask_output!r}; "
            f"the graph has {', '.join(inputs)} and {', '.join(outputs)}"
        )
    if not any(node.get_type_name() == "FakeQuantize" for node in network.get_ops()):
        raise BadModel(f"{weights} is called int8, but holds no quantized operation: make it again")
