"""Weights made alike before they are quantized: what a convolution's channel is divided by, the next convolution multiplies with.

The float network answers the same; its weights fit better into one fix point per layer. Source of the rule: Nagel and others,
"Data-Free Quantization through Weight Equalization and Bias Correction", arXiv:1906.04721, as Vitis AI 3.5, vai_q_pytorch, does it in
`commander.py`. Knows no integer. C channels in, D channels out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trainer.quantize.layers import CONV, MAX, MEAN, RAISE, FloatNetwork, Layer, takers_of

Array = NDArray[np.float32]
SMALLEST = np.float32(1e-7)
"""What stands for a weight of 0 in a channel without any other, and the least magnitude: the vendor's."""
UNTOUCHED = 0.5
"""Channels whose two largest weights are smaller than this together stay as they are."""


def equalized(network: FloatNetwork) -> FloatNetwork:
    """The network with equalized pairs of convolutions, in their order; its answers are the same up to float rounding."""
    kernels, biases = dict(network.kernels), dict(network.biases)
    for first, second in _pairs(network.layers):
        scale = _scale(kernels[first], biases[first], kernels[second])
        kernels[first] = (kernels[first] / scale).astype(np.float32)
        biases[first] = (biases[first] / scale).astype(np.float32)
        kernels[second] = (kernels[second] * scale[:, None]).astype(np.float32)
    return replace(network, kernels=kernels, biases=biases)


def _pairs(layers: Sequence[Layer]) -> list[tuple[str, str]]:
    """Convolutions, plain or transposed, of which the second alone takes what the first answers, through pools at most."""
    takers = takers_of(layers)
    found = []
    for layer in layers:
        if layer.kind in (CONV, RAISE):
            after = takers[layer.name]
            while len(after) == 1 and after[0].kind in (MAX, MEAN):
                after = takers[after[0].name]
            if len(after) == 1 and after[0].kind in (CONV, RAISE):
                found.append((layer.name, after[0].name))
    return found


def _scale(first: Array, bias: Array, second: Array) -> Array:
    """(D,) what the first kernel's channels are divided by: the root of the ratio of the two largest weights."""
    ours = np.abs(first).reshape(-1, first.shape[-1])
    largest = np.maximum(ours.max(axis=0), np.abs(bias) * ours.any(axis=0) / _bias_divisor(ours, np.abs(bias)))
    theirs = np.abs(second).max(axis=(0, 1, 3))
    middle = np.sqrt(largest * theirs)
    scale = np.divide(largest, middle, out=np.ones_like(largest), where=middle != 0)
    return np.where(largest + theirs < UNTOUCHED, np.float32(1), scale).astype(np.float32)


def _bias_divisor(weights: Array, bias: Array) -> int:
    """How much less a bias counts than a weight, given (-1, D) and (D,) magnitudes: the vendor's steps."""
    nonzero = np.where(weights == 0, np.inf, weights).min(axis=0)
    filled = np.maximum(np.where(weights == 0, np.where(np.isinf(nonzero), SMALLEST, nonzero), weights), SMALLEST)
    factor = np.where(weights.any(axis=0), bias, 0) / filled
    median, mean = float(np.median(factor)), float(factor.mean())
    if bias.max() < 10 and bias.max() / filled.max() < 20:
        return 5 if median > 100 or mean > 1000 else 2
    if median > 30 or mean > 500:
        return 20
    return 10 if median > 15 or mean > 100 else 5
