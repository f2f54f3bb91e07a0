"""What rounding adds to a layer's sums on average is taken off its bias again. Knows no file and no card.

The quantized and the float network look at the same crops. Within a batch each layer's mean differences are taken off before the next
layer looks, so none mends what an earlier one did; a bias is corrected by the mean over the batches. D channels out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it
from numpy.typing import NDArray
from torch import Tensor

from trainer.quantize.dpu_network import DpuArithmetic, DpuLayer, DpuNetwork, convolved, requantized, torch_kernel
from trainer.quantize.fix_points import best_fix_point, quantized_weights
from trainer.quantize.layers import CONCAT, INPUT, MAX, MEAN, FloatNetwork


class BiasCorrection:
    """Looks at batches, then gives the network with corrected biases."""

    def __init__(self, full: FloatNetwork, quantized: DpuNetwork) -> None:
        self._full, self._quantized = full, quantized
        self._arithmetic = DpuArithmetic(quantized)
        self._batches = 0
        #: by layer: (D,) sum over the batches of what its answers lack on average
        self._lacking = {name: np.zeros(len(bias)) for name, bias in full.biases.items()}
        self._kernels = {
            layer.name: torch_kernel(layer.kind, full.kernels[layer.name])
            for layer in full.layers
            if layer.name in full.kernels
        }

    @torch.no_grad()
    def look(self, pixels: NDArray[np.int8]) -> None:
        """Let one batch, (B, S, S, 3) int8, move the biases."""
        network = self._quantized
        quantized = {INPUT: torch.from_numpy(pixels).permute(0, 3, 1, 2).float()}
        full = {INPUT: quantized[INPUT] * 2.0**-network.input_fix_point}
        at = {INPUT: network.input_fix_point}
        self._batches += 1
        for layer in network.layers:
            full[layer.name] = self._float(layer, full)
            at[layer.name] = layer.fix_point
            if layer.name in self._kernels:
                quantized[layer.name] = self._mended(layer, full[layer.name], quantized, at)
            else:
                quantized[layer.name] = self._arithmetic.answer(layer, quantized, at)
            if layer.relu:
                full[layer.name].relu_()

    def _mended(self, layer: DpuLayer, full: Tensor, values: dict[str, Tensor], at: dict[str, int]) -> Tensor:
        """A quantized layer's answer once its mean is that of the float layer; what it lacked is noted."""
        fix_point = at[layer.of[0]] + layer.weight_fix_point
        sums = self._arithmetic.sums(layer, values)
        lacking = (
            full.mean((0, 2, 3), dtype=torch.float64) - sums.mean((0, 2, 3), dtype=torch.float64) * 2.0**-fix_point
        )
        self._lacking[layer.name] += lacking.numpy()
        sums += torch.round(lacking * 2.0**fix_point).to(sums.dtype)[None, :, None, None]
        return requantized(sums, fix_point - layer.fix_point, relu=layer.relu)

    def _float(self, layer: DpuLayer, values: dict[str, Tensor]) -> Tensor:
        """What a layer of the float network answers, before its ReLU."""
        sources = [values[name] for name in layer.of]
        if layer.kind == CONCAT:
            return torch.cat(sources, dim=1)
        if layer.kind in (MAX, MEAN):
            return (F.max_pool2d if layer.kind == MAX else F.avg_pool2d)(sources[0], layer.size)
        bias = torch.from_numpy(self._full.biases[layer.name].astype(np.float32))
        return convolved(layer.kind, sources[0], self._kernels[layer.name], bias)

    def corrected(self) -> DpuNetwork:
        """The quantized network with corrected biases, rounded to int8 at fix points of their own, as the DPU has them."""
        network = self._quantized
        biases = {
            layer.name: dpu_bias(
                self._full.biases[layer.name] + self._lacking[layer.name] / self._batches,
                network.fix_point(layer.of[0]) + layer.weight_fix_point,
            )
            for layer in network.layers
            if layer.name in self._lacking
        }
        return replace(network, biases=biases)


def dpu_bias(real: NDArray[np.floating], sums_fix_point: int) -> NDArray[np.int32]:
    """(D,) a bias at the fix point of its layer's sums, after it was int8 at its own; finer bits than the sums' are rounded away."""
    fix_point = min(best_fix_point(torch.tensor(real, dtype=torch.float64), weights=True), sums_fix_point)
    return quantized_weights(real.astype(np.float32), fix_point).astype(np.int32) << (sums_fix_point - fix_point)
