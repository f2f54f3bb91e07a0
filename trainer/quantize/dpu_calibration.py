"""From a float network and face crops to the DPU's integers: the fix points of every layer. Knows no file and no card.

Works through the crops in batches as the vendor's quantizer does: each layer sees what the quantized layers before it answer, each
batch chooses a fix point, the most frequent choice stands. A raised layer that is only concatenated is rounded once, by the concat.
B pictures, D channels out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it
from numpy.typing import NDArray
from torch import Tensor

from trainer.quantize.bias_correction import BiasCorrection, dpu_bias
from trainer.quantize.dpu_network import (
    MEANS,
    MOST_SHIFT,
    DpuLayer,
    DpuNetwork,
    convolved,
    requantized,
    summed,
    torch_kernel,
)
from trainer.quantize.equalization import equalized
from trainer.quantize.fix_points import Votes, best_fix_point, quantized_weights, without_saturation
from trainer.quantize.layers import CONCAT, INPUT, MAX, MEAN, RAISE, FloatNetwork, Layer, takers_of

BATCH = 8
CORRECTING = 25
"""Batches on which biases are corrected."""


def calibrate(
    network: FloatNetwork,
    crops: NDArray[np.uint8],
    quantize_input: Callable[[NDArray[np.uint8], int], NDArray[np.int8]],
    input_range: tuple[float, float],
) -> DpuNetwork:
    """Choose every fix point on (N, S, S, 3) uint8 crops.

    `quantize_input` writes crops at a fix point, as the card's engine does; `input_range` are the bounds of the network's real input.
    """
    network = equalized(network)
    fitting = _Fitting(network, without_saturation(*input_range))
    batches = [crops[start : start + BATCH] for start in range(0, len(crops), BATCH)]
    for batch in batches:
        fitting.look(quantize_input(batch, fitting.input_fix_point))
    chosen = fitting.settled()
    correcting = BiasCorrection(network, chosen)
    for batch in batches[:CORRECTING]:
        correcting.look(quantize_input(batch, fitting.input_fix_point))
    return correcting.corrected()


class _Fitting:
    def __init__(self, network: FloatNetwork, input_fix_point: int) -> None:
        self._network, self.input_fix_point = network, input_fix_point
        self._votes: defaultdict[str, Votes] = defaultdict(Votes)
        self._weights = {name: self._quantize(name) for name in network.kernels}
        #: by raised layer: the concat that alone takes it
        self._concat_of = _concatenated(network.layers)

    def _quantize(self, name: str, lower: int = 0) -> tuple[NDArray[np.int8], int]:
        """An int8 kernel and its fix point."""
        kernel = self._network.kernels[name]
        fix_point = best_fix_point(torch.tensor(kernel), weights=True) - lower
        return quantized_weights(kernel, fix_point), fix_point

    @torch.no_grad()
    def look(self, pixels: NDArray[np.int8]) -> None:
        """Let one batch vote."""
        values = {INPUT: torch.from_numpy(pixels).permute(0, 3, 1, 2).float()}
        at = {INPUT: self.input_fix_point}
        for layer in self._network.layers:
            sums, fix_point = self._sums(layer, values, at)
            if layer.name in self._concat_of:
                values[layer.name], at[layer.name] = sums, fix_point
                continue
            real = sums * 2.0**-fix_point
            chosen = self._votes[layer.name].add(best_fix_point((real.relu() if layer.relu else real).float()))
            at[layer.name] = min(chosen, fix_point) if layer.name in self._weights else chosen
            values[layer.name] = requantized(sums, fix_point - at[layer.name], relu=layer.relu)

    def _sums(self, layer: Layer, values: dict[str, Tensor], at: dict[str, int]) -> tuple[Tensor, int]:
        """What a layer answers before it is requantized, and the fix point of that."""
        sources = [values[name] for name in layer.of]
        if layer.kind == CONCAT:
            finest = max(at[name] for name in layer.of)
            joined = [x * 2.0 ** (finest - at[name]) for x, name in zip(sources, layer.of, strict=True)]
            return torch.cat(joined, dim=1), finest
        if layer.kind == MAX:
            return F.max_pool2d(sources[0], layer.size), at[layer.of[0]]
        if layer.kind == MEAN:
            factor, shift = MEANS[layer.size]
            return summed(sources[0], layer.size) * factor, at[layer.of[0]] + shift
        kernel, weight_fix_point = self._weights[layer.name]
        fix_point = at[layer.of[0]] + weight_fix_point
        bias = torch.from_numpy(dpu_bias(self._network.biases[layer.name], fix_point)).float()
        return convolved(layer.kind, sources[0], torch_kernel(layer.kind, kernel).float(), bias), fix_point

    def settled(self) -> DpuNetwork:
        """The network with the fix points that won, within the shifts that the DPU has."""
        at, layers = {INPUT: self.input_fix_point}, []
        for layer in self._network.layers:
            made = self._settle(layer, at)
            at[layer.name] = made.fix_point
            layers.append(made)
        network = self._network
        biases = {
            layer.name: dpu_bias(network.biases[layer.name], at[layer.of[0]] + layer.weight_fix_point)
            for layer in layers
            if layer.name in network.biases
        }
        kernels = {name: kernel for name, (kernel, _) in self._weights.items()}
        return DpuNetwork(tuple(layers), kernels, biases, self.input_fix_point, network.class_layer, network.mask_layer)

    def _settle(self, layer: Layer, at: dict[str, int]) -> DpuLayer:
        before = at[layer.of[0]]
        plain = (layer.name, layer.kind, layer.of, layer.size, layer.relu)
        chosen = self._votes[self._concat_of.get(layer.name, layer.name)].winner
        if layer.kind == MEAN:
            factor, shift = MEANS[layer.size]
            return DpuLayer(*plain, chosen, factor=factor, shift=shift)
        if layer.kind in (CONCAT, MAX):
            return DpuLayer(*plain, chosen)
        weight_fix_point = self._weights[layer.name][1]
        chosen = min(chosen, before + weight_fix_point)
        if (over := before + weight_fix_point - chosen - MOST_SHIFT) > 0:
            self._weights[layer.name] = self._quantize(layer.name, lower=over)
        return DpuLayer(*plain, chosen, self._weights[layer.name][1])


def _concatenated(layers: tuple[Layer, ...]) -> dict[str, str]:
    takers = takers_of(layers)
    raised = [layer.name for layer in layers if layer.kind == RAISE and not layer.relu]
    return {name: takers[name][0].name for name in raised if [one.kind for one in takers[name]] == [CONCAT]}
