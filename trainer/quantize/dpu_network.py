"""A quantized U-YNet in the arithmetic of the DPU: its file, and what it answers, to the bit, computed fast on a processor.

int8 features NHWC, real = q * 2**-fix_point; 32-bit sums; then one shift, rounded half up, saturated. Whole numbers in float32 add
up exactly below 2**24, in any order, so the convolutions run through torch's; a layer whose sums could reach that uses float64.
Letters: B pictures, S side, K side of a kernel, C channels in, D channels out.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it
from numpy.typing import NDArray
from torch import Tensor

from farm.errors import BadModel
from trainer.quantize.fix_points import LEAST, MOST, half_up
from trainer.quantize.layers import CONCAT, CONV, DAMAGED_NPZ, INPUT, MAX, MEAN, RAISE

EXACT_FLOAT32 = 2**24
MEANS = {2: (1, 2), 7: (21, 10)}
"""How a DPU averages K x K pixels: sum * factor >> shift, 21 / 1024 for 1 / 49. Vitis AI 3.5, vai_q_pytorch, `avgpool.py`."""
MOST_SHIFT = 16
"""The DPU shifts sums right by 0 to 16 bits. Vitis AI 3.5, vai_q_pytorch, `fix_pos_adjust.py`."""


@dataclass(frozen=True, slots=True)
class DpuLayer:
    """One operator with its number formats."""

    name: str
    kind: str
    of: tuple[str, ...]
    size: int
    relu: bool
    #: of what it answers
    fix_point: int
    #: of its kernel; 0 without one
    weight_fix_point: int = 0
    #: an average is sum * factor * 2**-shift
    factor: int = 1
    shift: int = 0


@dataclass(frozen=True, slots=True)
class DpuNetwork:
    """Layers in order, and their weights."""

    layers: tuple[DpuLayer, ...]
    #: by layer: (K, K, C, D) int8
    kernels: Mapping[str, NDArray[np.int8]]
    #: by layer: (D,) int32, at the fix point of the layer's sums
    biases: Mapping[str, NDArray[np.int32]]
    input_fix_point: int
    class_layer: str
    mask_layer: str

    def fix_point(self, name: str) -> int:
        """Of a layer's answer, or of INPUT."""
        if name == INPUT:
            return self.input_fix_point
        return next(layer.fix_point for layer in self.layers if layer.name == name)

    def to_bytes(self) -> bytes:
        """The network as one .npz; the same bytes for the same network."""
        names = {key: getattr(self, key) for key in ("input_fix_point", "class_layer", "mask_layer")}
        arrays: dict[str, NDArray[Any]] = {f"{name}.kernel": kernel for name, kernel in self.kernels.items()}
        arrays |= {f"{name}.bias": bias for name, bias in self.biases.items()}
        file = io.BytesIO()
        header = json.dumps(names | {"layers": [asdict(layer) for layer in self.layers]})
        np.savez(file, header=np.frombuffer(header.encode(), np.uint8), **arrays)  # type: ignore[arg-type]  # names are of layers
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, name: str) -> DpuNetwork:
        """Read `to_bytes`. Raises BadModel, naming the file, for anything else."""
        try:
            with np.load(io.BytesIO(content)) as file:
                arrays = {key: file[key] for key in file.files}
            header = json.loads(arrays.pop("header").tobytes())
            layers = tuple(DpuLayer(**one | {"of": tuple(one["of"])}) for one in header.pop("layers"))
            parts: dict[str, dict[str, Any]] = {"kernel": {}, "bias": {}}
            for key, array in arrays.items():
                layer, _, part = key.rpartition(".")
                parts[part][layer] = array
            return cls(layers, parts["kernel"], parts["bias"], **header)
        except DAMAGED_NPZ as error:
            raise BadModel(f"{name} is no network of `trainer quantize --dpu-arithmetic`: {error}") from error


class DpuArithmetic:
    """Computes a DpuNetwork; threads are torch's."""

    def __init__(self, network: DpuNetwork) -> None:
        self.network = network
        self._weights = {
            layer.name: _weights(layer, network.kernels[layer.name], network.biases[layer.name])
            for layer in network.layers
            if layer.kind in (CONV, RAISE)
        }
        self._uses = Counter(name for layer in network.layers for name in layer.of)

    @torch.no_grad()
    def run(self, pixels: NDArray[np.int8]) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
        """(B, S, S, 3) int8 -> (B,) class and (B, S, S) mask, int8 at the fix points of their layers."""
        network, left = self.network, Counter(self._uses)
        values = {INPUT: torch.from_numpy(pixels).permute(0, 3, 1, 2).float()}
        at = {INPUT: network.input_fix_point}
        for layer in network.layers:
            values[layer.name] = self.answer(layer, values, at)
            at[layer.name] = layer.fix_point
            for name in layer.of:
                left[name] -= 1
                if not left[name]:
                    del values[name]
        class_answer, mask_answer = values[network.class_layer], values[network.mask_layer]
        return class_answer.flatten().numpy().astype(np.int8), mask_answer[:, 0].numpy().astype(np.int8)

    def answer(self, layer: DpuLayer, values: Mapping[str, Tensor], at: Mapping[str, int]) -> Tensor:
        """What one layer answers, whole numbers in float32, given those before it and their fix points."""
        sources = [values[name] for name in layer.of]
        fix_point = at[layer.of[0]]
        if layer.kind == MAX:
            return requantized(F.max_pool2d(sources[0], layer.size), fix_point - layer.fix_point)
        if layer.kind == CONCAT:
            joined = [requantized(x, at[name] - layer.fix_point) for x, name in zip(sources, layer.of, strict=True)]
            return torch.cat(joined, dim=1)
        if layer.kind == MEAN:
            total = summed(sources[0], layer.size) * layer.factor
            return requantized(total, layer.shift + fix_point - layer.fix_point, relu=layer.relu)
        return requantized(
            self.sums(layer, values), fix_point + layer.weight_fix_point - layer.fix_point, relu=layer.relu
        )

    def sums(self, layer: DpuLayer, values: Mapping[str, Tensor]) -> Tensor:
        """The exact sums of a layer that has a kernel."""
        return convolved(layer.kind, values[layer.of[0]], *self._weights[layer.name])


def _weights(layer: DpuLayer, kernel: NDArray[np.int8], bias: NDArray[np.int32]) -> tuple[Tensor, Tensor]:
    """Kernel and bias in torch's order, in the narrowest float in which no sum and no rounding can lose a bit."""
    largest = np.abs(kernel.astype(np.int64)).sum(axis=(0, 1, 2)) * -LEAST + np.abs(bias.astype(np.int64))
    exact = torch.float32 if largest.max() + 2 ** (MOST_SHIFT - 1) < EXACT_FLOAT32 else torch.float64
    return torch_kernel(layer.kind, kernel).to(exact), torch.from_numpy(bias.astype(np.int64)).to(exact)


def torch_kernel(kind: str, kernel: NDArray[Any]) -> Tensor:
    """(K, K, C, D) -> (D, C, K, K) of a convolution, (C, D, K, K) of a transposed one."""
    return torch.tensor(np.ascontiguousarray(kernel.transpose((3, 2, 0, 1) if kind == CONV else (2, 3, 0, 1))))


def convolved(kind: str, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Sums of one convolution, (B, C, H, W) -> (B, D, H, W), or (B, D, 2H, 2W) of a transposed one, in the kernel's type."""
    if kind == CONV:
        return F.conv2d(x.to(kernel.dtype), kernel, bias, padding=kernel.shape[-1] // 2)
    return F.conv_transpose2d(x.to(kernel.dtype), kernel, bias, stride=2)


def summed(x: Tensor, size: int) -> Tensor:
    """Sums over size x size pixels, exact in float64."""
    return F.avg_pool2d(x.double(), size, divisor_override=1)


def requantized(sums: Tensor, shift: int, *, relu: bool = False) -> Tensor:
    """Whole numbers times 2**-shift, rounded half up, saturated to int8 (from 0 after a ReLU), as float32."""
    return half_up(sums * 2.0**-shift).clamp_(0 if relu else LEAST, MOST).float()
