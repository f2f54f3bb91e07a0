"""Equalized weights: the same answers in float, and the scales that the vendor's rule gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.quantize.dpu_network import convolved, torch_kernel
from trainer.quantize.equalization import equalized
from trainer.quantize.layers import CONCAT, CONV, INPUT, MAX, RAISE, FloatNetwork, Layer


def network(*layers: Layer, seed: int = 0) -> FloatNetwork:
    """Random weights, 4 channels everywhere, very unlike from channel to channel."""
    rng = np.random.default_rng(seed)
    kernels, biases = {}, {}
    for layer in layers:
        if layer.kind in (CONV, RAISE):
            spread = np.array([0.05, 0.5, 2.0, 8.0])
            kernels[layer.name] = (rng.normal(size=(layer.size, layer.size, 4, 4)) * spread).astype(np.float32)
            biases[layer.name] = rng.normal(size=4).astype(np.float32)
    return FloatNetwork(layers, kernels, biases, layers[-1].name, layers[-1].name)


def answer(given: FloatNetwork, image: Tensor) -> Tensor:
    values = {INPUT: image}
    for layer in given.layers:
        source = values[layer.of[0]]
        if layer.kind == MAX:
            made = torch.nn.functional.max_pool2d(source, layer.size)
        elif layer.kind == CONCAT:
            made = torch.cat([values[name] for name in layer.of], dim=1)
        else:
            kernel = torch_kernel(layer.kind, given.kernels[layer.name])
            made = convolved(layer.kind, source, kernel, torch.from_numpy(given.biases[layer.name]))
        values[layer.name] = made.relu() if layer.relu else made
    return values[given.layers[-1].name]


CHAIN = (
    Layer("first", CONV, (INPUT,), 3, relu=True),
    Layer("pool", MAX, ("first",), 2),
    Layer("second", CONV, ("pool",), 1, relu=True),
    Layer("raised", RAISE, ("second",), 2),
)


def largest(given: FloatNetwork, name: str, axis: int) -> np.ndarray:
    return np.abs(given.kernels[name]).max(axis=tuple({0, 1, 2, 3} - {axis}))


def test_a_chain_of_convolutions_answers_the_same_with_weights_made_alike() -> None:
    given = network(*CHAIN)
    made = equalized(given)
    image = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(answer(made, image), answer(given, image), rtol=1e-4, atol=1e-3)
    assert np.ptp(np.log2(largest(made, "first", 3))) < 0.8 * np.ptp(np.log2(largest(given, "first", 3)))
    # Channels scaled down in one layer are scaled up in the next.
    ratio = largest(given, "first", 3) / largest(made, "first", 3)
    np.testing.assert_allclose(given.biases["first"] / made.biases["first"], ratio, rtol=1e-5)


def test_a_channel_is_divided_by_the_root_of_the_ratio_of_the_largest_weights_and_a_bias_counts_half() -> None:
    given = network(Layer("first", CONV, (INPUT,), 1), Layer("second", CONV, ("first",), 1))
    first, second = np.full((1, 1, 4, 4), 0.5, np.float32), np.full((1, 1, 4, 4), 2.0, np.float32)
    second[:, :, 3] = first[:, :, :, 3] = 0.2
    bias = np.array([0.0, 16.0 / 2, 0.0, 0.0], np.float32)
    made = equalized(replace(given, kernels={"first": first, "second": second}, biases={"first": bias, "second": bias}))
    # The root of .5 / 2; of 4 / 2, for half the bias is the largest; .2 and .2 together are too small to be touched.
    wanted = np.array([0.5, np.sqrt(2.0), 0.5, 1.0])
    np.testing.assert_allclose(first[0, 0, 0] / made.kernels["first"][0, 0, 0], wanted, rtol=1e-6)
    np.testing.assert_allclose(made.kernels["second"][0, 0, :, 0] / second[0, 0, :, 0], wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("weight", "largest_weight", "bias", "divisor"),
    [
        (0.1, 0.1, 0.4, 2),  # a small bias: below 10, and below 20 of the largest weights
        (0.001, 1.0, 0.5, 5),  # a small one, but more than 100 of half of the weights
        (0.1, 0.1, 5.0, 20),  # 50 weights: more than 30
        (0.1, 0.1, 2.5, 10),  # 25: more than 15
        (1.0, 1.0, 12.0, 5),
    ],
)
def test_a_bias_counts_the_less_the_more_weights_it_is_worth(
    weight: float, largest_weight: float, bias: float, divisor: int
) -> None:
    given = network(Layer("first", CONV, (INPUT,), 1), Layer("second", CONV, ("first",), 1))
    first, second = np.full((1, 1, 4, 4), weight, np.float32), np.ones((1, 1, 4, 4), np.float32)
    first[0, 0, 0, 0] = largest_weight
    biases = {name: np.full(4, bias, np.float32) for name in given.kernels}
    made = equalized(replace(given, kernels={"first": first, "second": second}, biases=biases))
    wanted = np.sqrt(max(weight, bias / divisor))
    np.testing.assert_allclose(made.kernels["second"][0, 0, 1:, 0], wanted, rtol=1e-6)


def test_the_bias_of_a_channel_without_weights_counts_nothing() -> None:
    given = network(Layer("first", CONV, (INPUT,), 1), Layer("second", CONV, ("first",), 1))
    first, second = np.full((1, 1, 4, 4), 0.5, np.float32), np.full((1, 1, 4, 4), 2.0, np.float32)
    first[:, :, :, 1] = 0
    biases = {name: np.array([0.0, 3.0, 0.0, 0.0], np.float32) for name in given.kernels}
    made = equalized(replace(given, kernels={"first": first, "second": second}, biases=biases))
    np.testing.assert_array_equal(made.biases["first"], biases["first"])
    np.testing.assert_array_equal(made.kernels["second"][:, :, 1], second[:, :, 1])
    np.testing.assert_allclose(made.kernels["second"][0, 0, 0, 0], 1.0, rtol=1e-6)


def test_what_two_layers_take_is_left_as_it_is() -> None:
    given = network(
        Layer("first", CONV, (INPUT,), 1, relu=True),
        Layer("second", CONV, ("first",), 1),
        Layer("both", CONCAT, ("first", "second")),
    )
    made = equalized(given)
    for name in given.kernels:
        np.testing.assert_array_equal(made.kernels[name], given.kernels[name])
