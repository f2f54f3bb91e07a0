"""An exported U-YNet as a list of the operators that a DPU has, read from its ONNX graph. Knows no number format and no runtime.

Letters: K side of a kernel, C channels in, D channels out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from farm.contracts import ModelCard
from farm.errors import BadModel

INPUT = "input"
"""Name of the value that the first layer takes."""
DAMAGED_NPZ = (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile)
"""What a damaged or foreign .npz file raises."""
CONV, RAISE, MAX, MEAN, CONCAT = "conv", "raise", "max", "mean", "concat"
"""Stride-1 convolution with zero padding; 2x2 stride-2 transposed convolution; pools; concatenation of channels."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One operator, with the ReLU that follows it."""

    name: str
    kind: str
    #: the layers (or INPUT) that it takes
    of: tuple[str, ...]
    #: side of the kernel or of the pool
    size: int = 0
    relu: bool = False


@dataclass(frozen=True, slots=True)
class FloatNetwork:
    """Layers in an order in which they can be computed, and their weights."""

    layers: tuple[Layer, ...]
    #: by layer: (K, K, C, D) float32
    kernels: Mapping[str, NDArray[np.float32]]
    #: by layer: (D,) float32
    biases: Mapping[str, NDArray[np.float32]]
    class_layer: str
    mask_layer: str


def takers_of(layers: Sequence[Layer]) -> Mapping[str, list[Layer]]:
    """Name of a layer (or "input") -> the layers that take what it answers; none for the last."""
    takers: dict[str, list[Layer]] = {name: [] for name in (INPUT, *(layer.name for layer in layers))}
    for layer in layers:
        for name in layer.of:
            takers[name].append(layer)
    return takers


def read_onnx(path: Path, card: ModelCard) -> FloatNetwork:
    """Read an exported network whose batch norms are folded. Raises BadModel, naming the first operator that no DPU layer is."""
    import onnx
    from onnx import numpy_helper

    try:
        graph = onnx.load(path).graph
    except Exception as error:  # onnx raises what its protobuf does, a class of its own per version
        raise BadModel(f"{path} of model {card.name} is no ONNX graph: {error}") from error
    reading = _Reading(path, {one.name: numpy_helper.to_array(one) for one in graph.initializer}, card.input_name)
    for node in graph.node:
        reading.add(node)
    outputs = [reading.layer_of.get(name) for name in (card.class_output, card.mask_output)]
    if None in outputs:
        raise BadModel(f"{path} has no outputs {card.class_output!r} and {card.mask_output!r}, which its card names")
    return FloatNetwork(tuple(reading.layers), reading.kernels, reading.biases, str(outputs[0]), str(outputs[1]))


class _Reading:
    """A graph while it is read: which layer makes which tensor."""

    def __init__(self, path: Path, constants: dict[str, NDArray[Any]], input_name: str) -> None:
        self._path, self._constants = path, constants
        self.layer_of: dict[str, str] = {input_name: INPUT}
        self.layers: list[Layer] = []
        self.kernels: dict[str, NDArray[np.float32]] = {}
        self.biases: dict[str, NDArray[np.float32]] = {}
        self._adders: dict[str, Callable[[Any, dict[str, Any]], None]] = {
            "Conv": self._conv, "ConvTranspose": self._raise, "MaxPool": self._pool, "AveragePool": self._pool,
            "Concat": self._concat, "Relu": self._relu, "Reshape": self._same, "Flatten": self._same,
        }  # fmt: skip

    def add(self, node: Any) -> None:
        from onnx import helper

        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        if node.op_type not in self._adders:
            self._refuse(node, "is no operator of the DPU")
        self._adders[node.op_type](node, attributes)

    def _refuse(self, node: Any, why: str) -> None:
        raise BadModel(
            f"{self._path}: {node.op_type} {node.output[0]!r} {why}; a U-YNet as `trainer export` writes it has 3x3 and 1x1 "
            "convolutions, 2x2 transposed ones, pools of 2 and 7, concatenations and ReLUs"
        )

    def _append(self, node: Any, kind: str, size: int = 0) -> str:
        name = str(node.output[0])
        of = tuple(self.layer_of[one] for one in node.input if one in self.layer_of)
        if not of:
            self._refuse(node, "takes no layer's output")
        self.layers.append(Layer(name, kind, of, size))
        self.layer_of[name] = name
        return name

    def _weights(self, node: Any, name: str, axes: tuple[int, ...], channels: int) -> None:
        kernel = self._constants[node.input[1]].transpose(axes)
        bias = self._constants[node.input[2]] if len(node.input) > 2 else np.zeros(channels)
        self.kernels[name] = np.ascontiguousarray(kernel, np.float32)
        self.biases[name] = np.asarray(bias, np.float32)

    def _conv(self, node: Any, attributes: dict[str, Any]) -> None:
        weights = self._constants[node.input[1]]
        size = weights.shape[2]
        pads = list(attributes.get("pads", [0] * 4))
        plain = list(attributes.get("strides", [1, 1])) == [1, 1] and attributes.get("group", 1) == 1
        if weights.shape[2:] != (size, size) or size not in (1, 3) or pads != [size // 2] * 4 or not plain:
            self._refuse(node, f"has kernel {weights.shape}, pads {pads}")
        self._weights(node, self._append(node, CONV, size), (2, 3, 1, 0), weights.shape[0])

    def _raise(self, node: Any, attributes: dict[str, Any]) -> None:
        weights = self._constants[node.input[1]]
        if weights.shape[2:] != (2, 2) or list(attributes.get("strides", [])) != [2, 2]:
            self._refuse(node, f"has kernel {weights.shape}, strides {attributes.get('strides')}")
        self._weights(node, self._append(node, RAISE, 2), (2, 3, 0, 1), weights.shape[1])

    def _pool(self, node: Any, attributes: dict[str, Any]) -> None:
        size = list(attributes["kernel_shape"])
        if (
            size != list(attributes.get("strides", []))
            or any(attributes.get("pads", [0]))
            or size not in ([2, 2], [7, 7])
        ):
            self._refuse(node, f"has kernel {size}, strides {attributes.get('strides')}")
        self._append(node, MAX if node.op_type == "MaxPool" else MEAN, size[0])

    def _concat(self, node: Any, attributes: dict[str, Any]) -> None:
        if attributes.get("axis") != 1:
            self._refuse(node, "does not join channels")
        self._append(node, CONCAT)

    def _relu(self, node: Any, attributes: dict[str, Any]) -> None:
        before = self.layer_of[node.input[0]]
        at = next(index for index, layer in enumerate(self.layers) if layer.name == before)
        self.layers[at] = replace(self.layers[at], relu=True)
        self._same(node, attributes)

    def _same(self, node: Any, _attributes: dict[str, Any]) -> None:
        self.layer_of[node.output[0]] = self.layer_of[node.input[0]]
