"""The default engine: ONNX Runtime on the processor.

Settings chosen by measurement at W=16 on two AVX-512 cores, in CPU-ms per crop: one thread 24.5; batches of 2, 4
and 8 no less, so crops go one by one; two threads 26 without spinning and 48 with it, so threads never spin; every level of graph
optimisation below "all" 37.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from farm.contracts import CROP_SIDE_PX, EngineSpec, ModelCard
from farm.errors import BadModel, EngineBusy, EngineMissing
from workers.engines.base import Engine, NetworkEngine


class OnnxEngine(NetworkEngine):
    """An ONNX Runtime session; sessions may be run by several threads at once."""

    def __init__(self, session: Any, card: ModelCard, block: int) -> None:
        precision = "int8" if card.training.get("quantized_from") else "fp32"
        super().__init__(card, EngineSpec(name="onnx", device="cpu", precision=precision, batch=block))
        self._session: Any = session

    def run(self, planes: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
        session, card = self._session, self._card
        if session is None:
            raise EngineBusy("the onnx engine was closed")
        try:
            class_output, mask_output = session.run([card.class_output, card.mask_output], {card.input_name: planes})
        except Exception as error:  # a class of its own per reason, all derived from Exception
            raise EngineBusy(f"ONNX Runtime stopped: {error}") from error
        return class_output, mask_output

    def close(self) -> None:
        super().close()
        self._session = None


def open_here(weights: Path, card: ModelCard, *, threads: int, device: str | None, rate: float | None) -> Engine:
    """Open `weights` on the processor and try one blank crop. Raises EngineMissing or BadModel."""
    if device not in (None, "cpu"):
        raise EngineMissing(f"the onnx engine runs on 'cpu' alone, not on {device!r}")
    session = _session(weights, card, threads)
    engine = OnnxEngine(session, card, _block(session, card))
    engine.try_blank()
    return engine


def _session(weights: Path, card: ModelCard, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineMissing(f"the onnx engine needs ONNX Runtime ({error}): pip install 'onnxruntime>=1.30'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BadModel(f"ONNX Runtime cannot load {weights} of model {card.name}: {error}") from error


def _block(session: Any, card: ModelCard) -> int:
    """Crops per run: 1 where the graph leaves it open, else the graph's own. Raises BadModel if card and graph disagree."""
    inputs = {tensor.name: tensor.shape for tensor in session.get_inputs()}
    outputs = [tensor.name for tensor in session.get_outputs()]
    missing = [name for name in (card.class_output, card.mask_output) if name not in outputs]
    if list(inputs) != [card.input_name] or missing:
        raise BadModel(
            f"model card {card.name} names input {card.input_name!r} and outputs {card.class_output!r}, {card.mask_output!r}; "
            f"the graph has {', '.join(inputs)} and {', '.join(outputs)}"
        )
    shape = inputs[card.input_name]
    if len(shape) != 4 or shape[1:] != [3, CROP_SIDE_PX, CROP_SIDE_PX]:
        raise BadModel(f"model {card.name} takes {shape}, expected (B, 3, {CROP_SIDE_PX}, {CROP_SIDE_PX})")
    return shape[0] if isinstance(shape[0], int) else 1
