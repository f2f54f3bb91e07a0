"""The DPU's arithmetic, computed fast, against the integer reference that the stand-in card computes with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from model_cards import model_card
from numpy.typing import NDArray
from onnx import helper, save
from stand_in import integer_network
from unit.trainer.drawn_faces import patches as crops

from farm.contracts import ModelCard
from farm.errors import BadModel
from trainer.quantize import dpu_backend
from trainer.quantize.bias_correction import BiasCorrection, dpu_bias
from trainer.quantize.dpu_network import MEANS, DpuArithmetic, DpuLayer, DpuNetwork
from trainer.quantize.fix_points import Votes, best_fix_point, half_away, half_up, quantized_weights, without_saturation
from trainer.quantize.layers import CONCAT, CONV, MAX, MEAN, RAISE, FloatNetwork, Layer, read_onnx

CARD = model_card(
    weights="tiny.onnx", input_name="image", mask_output="mask_logit", input_scale=1 / 64, input_offset=-2.0
)
SIDE = 224


@pytest.fixture(scope="module")
def network(tiny_onnx: Path) -> DpuNetwork:
    return DpuNetwork.from_bytes(dpu_backend.make(tiny_onnx, CARD, crops(8)).content, "tiny")


def reference(network: DpuNetwork, pixels: NDArray[np.int8]) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """What the stand-in card answers."""
    header = {
        "input_fix_point": network.input_fix_point,
        "layers": [dataclasses.asdict(layer) for layer in network.layers],
    }
    weights = {f"{name}.kernel": kernel for name, kernel in network.kernels.items()}
    weights |= {f"{name}.bias": bias for name, bias in network.biases.items()}
    values = integer_network.compute(header, weights, pixels)
    return values[network.class_layer].transpose(0, 3, 1, 2).ravel(), values[network.mask_layer][..., 0]


def assert_same(network: DpuNetwork, pixels: NDArray[np.int8]) -> None:
    for ours, theirs in zip(DpuArithmetic(network).run(pixels), reference(network, pixels), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_whole_network_answers_to_the_bit_what_the_integer_reference_does(network: DpuNetwork) -> None:
    pixels = np.random.default_rng(3).integers(-128, 128, (2, SIDE, SIDE, 3)).astype(np.int8)
    assert_same(network, pixels)
    classes, masks = DpuArithmetic(network).run(pixels)
    assert len(np.unique(masks)) > 20
    assert classes.shape == (2,)


def test_it_answers_about_what_the_float_network_does(tiny_onnx: Path, tmp_path: Path) -> None:
    from trainer.quantize.int8 import BACKENDS
    from workers.engines import open_engine

    made = BACKENDS["dpu"].make(tiny_onnx, CARD, crops(8))
    weights = tmp_path / "tiny-dpu.npz"
    weights.write_bytes(made.content)
    card = dataclasses.replace(CARD, weights=weights.name, sha256=sha256(weights))
    weights.with_suffix(".json").write_text(card.to_json())
    logits, masks = BACKENDS["dpu"].open(weights.with_suffix(".json"), 1).score(crops(12, seed=5))
    full = open_engine("onnx", tiny_onnx, dataclasses.replace(CARD, sha256=sha256(tiny_onnx))).predict(
        crops(12, seed=5)
    )
    assert np.abs(logits - full.logits).max() < 0.1 * np.ptp(full.logits) + 2.0 ** -made.dpu["class_fix_point"]
    assert (masks == full.masks).mean() > 0.95
    assert made.dpu["input_fix_point"] == 6


def sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("c_in", "extreme"), [(3, False), (300, True)])
def test_sums_at_the_edge_of_32_bit_floats_lose_no_bit(c_in: int, extreme: bool) -> None:
    rng = np.random.default_rng(c_in)
    kernel = rng.integers(-128, 128, (3, 3, c_in, 4)).astype(np.int8)
    x = rng.integers(-128, 128, (1, 6, 6, c_in)).astype(np.int8)
    if extreme:
        kernel[..., 0], x[..., :] = -128, -128
    bias = rng.integers(-(2**20), 2**20, 4).astype(np.int32)
    layer = DpuLayer("out", CONV, ("input",), 3, False, 0, 5)
    network = DpuNetwork((layer,), {"out": kernel}, {"out": bias}, 11, "out", "out")
    sums = DpuArithmetic(network).sums(layer, {"input": torch.from_numpy(x).permute(0, 3, 1, 2).float()})
    expected = np.zeros((6, 6, 4), np.int64)
    for row, column, out in np.ndindex(6, 6, 4):
        window = np.zeros((3, 3, c_in), np.int64)
        for dy, dx in np.ndindex(3, 3):
            if 0 <= row + dy - 1 < 6 and 0 <= column + dx - 1 < 6:
                window[dy, dx] = x[0, row + dy - 1, column + dx - 1]
        expected[row, column, out] = (window * kernel[..., out].astype(np.int64)).sum() + bias[out]
    np.testing.assert_array_equal(sums[0].permute(1, 2, 0).numpy(), expected)
    assert not extreme or np.abs(expected).max() > 2**24


def test_a_7x7_average_is_21_of_1024_of_the_sum_rounded_half_up() -> None:
    factor, shift = MEANS[7]
    layers = (
        DpuLayer("pool", MAX, ("input",), 2, False, 4),
        DpuLayer("mean", MEAN, ("pool",), 7, False, 4, factor=factor, shift=shift),
    )
    pixels = np.random.default_rng(2).integers(-128, 128, (20, 14, 14, 1)).astype(np.int8)
    network = DpuNetwork(layers, {}, {}, 4, "mean", "mean")
    sums = pixels.reshape(20, 7, 2, 7, 2).max(axis=(2, 4)).sum(axis=(1, 2), dtype=int)
    assert DpuArithmetic(network).run(pixels)[0].tolist() == [(int(one) * 21 + 512) >> 10 for one in sums]
    assert_same(network, pixels)


def test_a_skip_connection_is_requantized_at_the_concat() -> None:
    kernel = np.full((2, 2, 1, 1), 3, np.int8)
    layers = (
        DpuLayer("pool", MAX, ("input",), 2, False, 4),
        DpuLayer("raised", RAISE, ("pool",), 2, False, 6, weight_fix_point=2),
        DpuLayer("both", CONCAT, ("raised", "input"), 0, False, 3),
    )
    network = DpuNetwork(layers, {"raised": kernel}, {"raised": np.array([1], np.int32)}, 4, "both", "both")
    pixels = np.array([[[[5], [-5]], [[-3], [1]]]], np.int8)
    # raised: 5 * 3 + 1 = 16 at fix point 6, so 2 at 3; the skip: 5, -5, -3, 1 at fix point 4, so 2.5, -2.5, -1.5, .5 rounded up.
    assert DpuArithmetic(network).run(pixels)[0].tolist() == [2, 2, 2, 2, 3, -2, -1, 1]
    assert_same(network, pixels)


def test_a_pool_may_have_a_coarser_fix_point_than_what_it_pools() -> None:
    layers = (DpuLayer("pool", MAX, ("input",), 2, False, 3), DpuLayer("mean", MEAN, ("pool",), 2, False, 3, 1, 1, 2))
    network = DpuNetwork(layers, {}, {}, 4, "mean", "mean")
    pixels = np.random.default_rng(1).integers(-128, 128, (9, 4, 4, 1)).astype(np.int8)
    pooled = np.floor(pixels.reshape(9, 2, 2, 2, 2).max(axis=(2, 4)) / 2 + 0.5)
    wanted = np.floor(pooled.sum(axis=(1, 2)) / 4 + 0.5).astype(int)
    assert DpuArithmetic(network).run(pixels)[0].tolist() == wanted.tolist()
    assert_same(network, pixels)


def test_a_raised_layer_that_is_only_concatenated_has_the_fix_point_of_the_concat(network: DpuNetwork) -> None:
    layers = {layer.name: layer for layer in network.layers}
    joined = [layer for layer in network.layers if layer.kind == CONCAT]
    raised = [(layers[name], layer) for layer in joined for name in layer.of if layers[name].kind == RAISE]
    assert raised
    for layer, concat in raised:
        assert layer.fix_point == min(concat.fix_point, network.fix_point(layer.of[0]) + layer.weight_fix_point)


def test_halves_go_up_in_features_and_away_from_zero_in_weights() -> None:
    halves = torch.tensor([-1.5, -0.5, 0.5, 1.5])
    assert half_up(halves).tolist() == [-1, 0, 1, 2]
    assert half_away(halves).tolist() == [-2, -1, 1, 2]


def test_the_input_gets_the_highest_fix_point_at_which_nothing_saturates() -> None:
    assert without_saturation(-2.0, 255 / 64 - 2) == 6
    assert without_saturation(0.0, 1.0) == 6
    assert without_saturation(-1.0, 127 / 128) == 7
    assert without_saturation(0.0, 300.0) == -2


def test_a_fix_point_may_saturate_a_rare_outlier_for_the_sake_of_the_rest() -> None:
    values = torch.cat([torch.randn(10_000, generator=torch.Generator().manual_seed(0)), torch.tensor([8.5])])
    assert without_saturation(float(values.min()), 8.5) == 3
    assert best_fix_point(values) == 4
    assert best_fix_point(values, candidates=1) == 3


def test_the_most_frequent_fix_point_wins_and_the_lower_of_two() -> None:
    votes = Votes()
    assert [votes.add(fix_point) for fix_point in (5, 4, 4, 5, 5)] == [5, 4, 4, 4, 5]


def test_a_bias_is_int8_at_a_fix_point_of_its_own() -> None:
    assert dpu_bias(np.array([1.0, -0.504]), 14).tolist() == [64 << 8, -32 << 8]
    assert dpu_bias(np.array([1.0, -0.504]), 3).tolist() == [8, -4]


def test_what_rounding_a_kernel_takes_away_on_average_its_bias_gives_back() -> None:
    kernel = np.array([0.1, 0.1, 1.0], np.float32).reshape(1, 1, 3, 1)
    full = FloatNetwork(
        (Layer("out", CONV, ("input",), 1),), {"out": kernel}, {"out": np.zeros(1, np.float32)}, "out", "out"
    )
    coarse = {"out": quantized_weights(kernel, 2)}  # 0, 0, 4: a fifth of the sum is gone
    layer = DpuLayer("out", CONV, ("input",), 1, False, fix_point=4, weight_fix_point=2)
    network = DpuNetwork((layer,), coarse, {"out": np.zeros(1, np.int32)}, 6, "out", "out")
    pixels = np.random.default_rng(0).integers(40, 100, (4, 6, 6, 3)).astype(np.int8)
    correction = BiasCorrection(full, network)
    correction.look(pixels)
    wanted = (pixels * kernel.ravel()).sum(axis=-1).mean() * 2.0**-6
    before, after = (DpuArithmetic(one).run(pixels)[1].mean() * 2.0**-4 for one in (network, correction.corrected()))
    assert abs(before - wanted) > 0.2
    assert abs(after - wanted) < 0.01


def test_an_operator_that_no_dpu_has_is_named(tmp_path: Path) -> None:
    graph = helper.make_graph([helper.make_node("Sigmoid", ["image"], ["p"])], "bad", [], [])
    save(helper.make_model(graph), tmp_path / "bad.onnx")
    with pytest.raises(BadModel, match="Sigmoid 'p' is no operator of the DPU"):
        read_onnx(tmp_path / "bad.onnx", CARD)


def test_outputs_that_the_card_does_not_name_are_refused(tiny_onnx: Path) -> None:
    with pytest.raises(BadModel, match="no outputs 'nonsense'"):
        read_onnx(tiny_onnx, dataclasses.replace(CARD, class_output="nonsense"))


@pytest.mark.parametrize("content", [b"PK nonsense", b"PK\x03\x04 cut short", b""], ids=["text", "cut", "empty"])
def test_what_is_no_network_is_refused(content: bytes) -> None:
    with pytest.raises(BadModel, match="no network of `trainer quantize --dpu-arithmetic`"):
        DpuNetwork.from_bytes(content, "x.npz")


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    weights = tmp_path / "tiny-dpu.npz"
    weights.write_bytes(b"other")
    card: ModelCard = dataclasses.replace(CARD, weights=weights.name)
    weights.with_suffix(".json").write_text(card.to_json())
    with pytest.raises(BadModel, match="not the file that its card"):
        dpu_backend.open_scorer(weights.with_suffix(".json"))


def test_the_same_network_makes_the_same_bytes_and_comes_back_from_them(network: DpuNetwork) -> None:
    again = DpuNetwork.from_bytes(network.to_bytes(), "again")
    assert again.layers == network.layers
    assert again.to_bytes() == network.to_bytes()
