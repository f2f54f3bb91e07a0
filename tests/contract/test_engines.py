"""One suite over every engine. A tiny network with a known answer tells whether pixels, polarity and masks come through:
its class logit is 8 * (mean brightness - 0.5), its mask logit 8 * (red - 0.5), both on the [0, 1] scale."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from model_cards import model_card
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from farm.contracts import ENGINE_NAMES, ModelCard
from farm.errors import BadInput, BadModel, BadObject, EngineBusy, EngineMissing
from farm.settings import settings
from workers.engines import ENGINES, open_engine
from workers.engines.base import Engine
from workers.engines.openvino import packed
from workers.engines.simulated import SimulatedEngine
from workers.engines.weights import SHIPPED

SIDE = 224
NETWORKS = ["onnx", "openvino"]
"""The engines of this machine that run the weights they are given."""
EVERY = [*NETWORKS, "simulated", "vart"]
Crops = NDArray[np.uint8]


@cache
def network_bytes(block: int | str = "B") -> bytes:
    """The known network as ONNX; its kernels are zero but for their centre."""
    weights = np.zeros((2, 3, 3, 3), np.float32)
    weights[0, :, 1, 1], weights[1, 0, 1, 1] = 8 / 3, 8
    tensors = {"kernel": weights, "bias": np.full(2, -4, np.float32), "flat": np.array([0, -1], np.int64)}
    nodes = [
        helper.make_node("Conv", ["crops", "kernel", "bias"], ["both"], pads=[1, 1, 1, 1]),
        helper.make_node("Split", ["both"], ["brightness", "mask_logit"], axis=1, num_outputs=2),
        helper.make_node("GlobalAveragePool", ["brightness"], ["mean"]),
        helper.make_node("Reshape", ["mean", "flat"], ["class_logit"]),
    ]
    shapes = {"crops": [block, 3, SIDE, SIDE], "class_logit": [block, 1], "mask_logit": [block, 1, SIDE, SIDE]}
    image, *outputs = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    constants = [numpy_helper.from_array(tensor, name) for name, tensor in tensors.items()]
    graph = helper.make_graph(nodes, "known", [image], outputs, constants)
    opset = [helper.make_opsetid("", 18)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString())


@cache
def int8_bytes() -> bytes:
    """The known network as int8 weights: what enters its convolution passes through 8 bits."""
    import openvino
    from openvino import opset13

    network = openvino.Core().read_model(network_bytes())
    convolution = next(node for node in network.get_ops() if node.get_type_name() == "Convolution")
    least, most = np.float32(0), np.float32(1)
    rounded = opset13.fake_quantize(convolution.input_value(0), least, most, least, most, 256)
    convolution.input(0).replace_source_output(rounded.output(0))
    return packed(network)


def fp32_packed() -> bytes:
    """The known network packed as int8 weights are, but left in fp32."""
    import openvino

    return packed(openvino.Core().read_model(network_bytes()))


def write_model(
    folder: Path, content: bytes | None = None, int8: bool = False, **changes: object
) -> tuple[Path, ModelCard]:
    """Weights and card of the known network in a folder."""
    content = (int8_bytes() if int8 else network_bytes()) if content is None else content
    weights = folder / ("known.zip" if int8 else "known.onnx")
    weights.write_bytes(content)
    card = model_card(
        weights=weights.name,
        sha256=hashlib.sha256(content).hexdigest(),
        training={"quantized_from": "0" * 64} if int8 else {},
    )
    return weights, replace(card, **changes)  # type: ignore[arg-type]


Model = Callable[..., tuple[Path, ModelCard]]


@pytest.fixture
def model(tmp_path: Path, request: pytest.FixtureRequest) -> Model:
    """Weights and card of the known network as the named engine wants them, with changes to the card."""

    def make(engine: str, **changes: object) -> tuple[Path, ModelCard]:
        if engine == "vart":
            return request.getfixturevalue("vart_model")(**changes)
        return write_model(tmp_path, int8=engine == "openvino", **changes)

    return make


@pytest.fixture(params=EVERY)
def engine(request: pytest.FixtureRequest, model: Model) -> Iterator[Engine]:
    """Every engine, opened for the known network."""
    opened = open_engine(request.param, *model(request.param), rate=10_000)
    yield opened
    opened.close()


def crops(count: int, seed: int = 0) -> Crops:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


@pytest.mark.parametrize("count", [1, 7, 8, 65])
def test_a_batch_of_any_size_gives_one_answer_per_crop(engine: Engine, count: int) -> None:
    answer = engine.predict(crops(count))
    assert answer.logits.shape == answer.p_fake.shape == (count,)
    assert answer.masks.shape == (count, SIDE, SIDE)
    assert answer.logits.dtype == answer.p_fake.dtype == np.float32
    assert answer.masks.dtype == np.bool_


def test_probabilities_are_the_logistic_function_of_the_logits(engine: Engine) -> None:
    answer = engine.predict(crops(5))
    np.testing.assert_allclose(answer.p_fake, 1 / (1 + np.exp(-answer.logits.astype(np.float64))), rtol=1e-6)


def test_a_crop_scores_the_same_alone_in_a_batch_and_a_second_time(engine: Engine) -> None:
    pixels = crops(9)
    whole, again = engine.predict(pixels), engine.predict(pixels)
    np.testing.assert_array_equal(whole.logits, again.logits)
    np.testing.assert_array_equal(whole.masks, again.masks)
    for row in (0, 8):
        alone = engine.predict(pixels[row : row + 1])
        np.testing.assert_allclose(alone.logits[0], whole.logits[row], rtol=1e-5)
        np.testing.assert_array_equal(alone.masks[0], whole.masks[row])


def test_the_pixels_given_stay_as_they_were(engine: Engine) -> None:
    pixels = crops(3)
    before = pixels.copy()
    pixels.flags.writeable = False
    engine.predict(pixels)
    np.testing.assert_array_equal(pixels, before)


def test_pixels_that_do_not_lie_together_in_memory_score_as_their_copy(engine: Engine) -> None:
    mirrored = crops(4)[::2, :, ::-1]
    np.testing.assert_array_equal(engine.predict(mirrored).logits, engine.predict(mirrored.copy()).logits)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, SIDE, SIDE, 3), np.float32),
        np.zeros((2, SIDE, SIDE, 3), np.int8),
        np.zeros((SIDE, SIDE, 3), np.uint8),
        np.zeros((2, 3, SIDE, SIDE), np.uint8),
        np.zeros((2, 112, 112, 3), np.uint8),
        np.zeros((0, SIDE, SIDE, 3), np.uint8),
        [[1]],
    ],
    ids=["float", "signed", "one crop", "channels first", "small", "empty", "a list"],
)
def test_pixels_of_another_kind_are_refused_with_what_they_are(engine: Engine, wrong: Crops) -> None:
    with pytest.raises(BadObject, match="expected"):
        engine.predict(wrong)


def test_two_threads_get_the_answers_of_one(engine: Engine) -> None:
    batches = [crops(3, seed) for seed in range(8)]
    alone = [engine.predict(batch).logits for batch in batches]
    with ThreadPoolExecutor(2) as pool:
        together = [answer.logits for answer in pool.map(engine.predict, batches)]
    np.testing.assert_array_equal(together, alone)


def test_a_closed_engine_says_so_and_may_be_closed_again(engine: Engine) -> None:
    engine.close()
    engine.close()
    with pytest.raises(EngineBusy, match="closed"):
        engine.predict(crops(1))


def test_the_spec_names_the_engine_and_where_it_runs(engine: Engine, request: pytest.FixtureRequest) -> None:
    spec = engine.spec
    assert spec.name in request.node.name
    card = settings().vart_device
    assert spec.device == {"onnx": "cpu", "openvino": "cpu", "simulated": "simulated-0", "vart": card}[spec.name]
    assert spec.precision == {"onnx": "fp32", "openvino": "int8", "simulated": "simulated", "vart": "int8"}[spec.name]
    assert spec.batch >= 1


@pytest.mark.parametrize("name", EVERY)
def test_weights_of_another_version_than_the_card_are_refused(name: str, model: Model) -> None:
    with pytest.raises(BadModel, match="sha256"):
        open_engine(name, *model(name, sha256="f" * 64))


@pytest.mark.parametrize("name", EVERY)
def test_missing_weights_are_refused(name: str, model: Model) -> None:
    weights, card = model(name)
    with pytest.raises(BadModel, match="cannot be read"):
        open_engine(name, weights.with_name("gone.onnx"), card)


def test_an_unknown_engine_is_refused_with_the_names_there_are(model: Model) -> None:
    with pytest.raises(BadInput, match="onnx, openvino, simulated"):
        open_engine("tensorrt", *model("onnx"))


@pytest.mark.parametrize("polarity", ["fake", "real"])
@pytest.mark.parametrize("name", NETWORKS)
def test_bright_means_fake_or_real_as_the_card_says(name: str, polarity: str, model: Model) -> None:
    engine = open_engine(name, *model(name, logit_polarity=polarity))
    dark_grey_bright = np.stack([np.full((SIDE, SIDE, 3), level, np.uint8) for level in (0, 51, 255)])
    expected = np.array([-4, -2.4, 4]) * (1 if polarity == "fake" else -1)
    np.testing.assert_allclose(engine.predict(dark_grey_bright).logits, expected, atol=0.08)


@pytest.mark.parametrize("polarity", ["fake", "real"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_mask_is_where_it_is_red_under_either_polarity(name: str, polarity: str, model: Model) -> None:
    engine = open_engine(name, *model(name, logit_polarity=polarity))
    pixels = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    pixels[..., 2] = 255
    pixels[1, 10:30, 100:200, 0] = 255
    expected = np.zeros((2, SIDE, SIDE), np.bool_)
    expected[1, 10:30, 100:200] = True
    np.testing.assert_array_equal(engine.predict(pixels).masks, expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_cards_mask_threshold_is_a_probability(name: str, model: Model) -> None:
    pixels = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    pixels[..., 0] = 178  # sigmoid(8 * (0.7 - 0.5)) is 0.83
    assert open_engine(name, *model(name, mask_threshold=0.8)).predict(pixels).masks.all()
    assert not open_engine(name, *model(name, mask_threshold=0.86)).predict(pixels).masks.any()
    with pytest.raises(BadModel, match="mask_threshold"):
        open_engine(name, *model(name, mask_threshold=1.0))


@pytest.mark.parametrize("name", NETWORKS)
def test_scale_and_offset_of_the_card_are_applied(name: str, model: Model) -> None:
    dark = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    engine = open_engine(name, *model(name, input_scale=0.5 / 255, input_offset=0.5))
    np.testing.assert_allclose(engine.predict(dark).logits, [0], atol=0.08)


def test_a_graph_of_a_fixed_batch_takes_any_number_of_crops(tmp_path: Path) -> None:
    pixels = crops(6)
    free = open_engine("onnx", *write_model(tmp_path)).predict(pixels)
    fixed = open_engine("onnx", *write_model(tmp_path, network_bytes(4))).predict(pixels)
    np.testing.assert_allclose(fixed.logits, free.logits, rtol=1e-5)
    np.testing.assert_array_equal(fixed.masks, free.masks)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "content", [b"", b"no network at all", b"\x08\x0a" + b"\xff" * 2000], ids=["empty", "text", "damaged"]
)
def test_a_corrupt_file_is_a_bad_model(name: str, content: bytes, tmp_path: Path) -> None:
    with pytest.raises(BadModel, match=r"cannot load|the graph has"):
        open_engine(name, *write_model(tmp_path, content, int8=name == "openvino"))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("field", ["input_name", "class_output", "mask_output"])
def test_a_name_that_the_graph_lacks_is_told_with_those_it_has(name: str, field: str, model: Model) -> None:
    with pytest.raises(BadModel, match=r"'nonsense'.*the graph has crops and class_logit, mask_logit"):
        open_engine(name, *model(name, **{field: "nonsense"}))


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_that_are_exchanged_on_the_card_are_told_when_it_opens(name: str, model: Model) -> None:
    with pytest.raises(BadModel, match="answers"):
        open_engine(name, *model(name, class_output="mask_logit", mask_output="class_logit"))


@pytest.mark.parametrize(("name", "runtime"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_a_missing_runtime_is_told_with_the_command_that_installs_it(
    name: str, runtime: str, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, runtime, None)
    with pytest.raises(EngineMissing, match=f"pip install '{runtime}"):
        open_engine(name, *model(name))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_device_that_is_not_here_is_never_replaced_by_the_processor(name: str, model: Model) -> None:
    with pytest.raises(EngineMissing, match=r"(?i)npu"):
        open_engine(name, *model(name), device="NPU")


def test_opening_one_engine_imports_no_other_runtime(model: Model) -> None:
    code = (
        "import sys; from pathlib import Path; from farm.contracts import ModelCard; from workers.engines import open_engine;"
        "assert not {'onnxruntime', 'openvino', 'torch'} & set(sys.modules), 'at import';"
        "open_engine('simulated', Path(sys.argv[1]), ModelCard.load(Path(sys.argv[2])));"
        "assert not {'onnxruntime', 'openvino', 'torch'} & set(sys.modules), 'at open'"
    )
    weights, card = model("onnx")
    card_path = weights.with_suffix(".json")
    card_path.write_text(card.to_json())
    done = subprocess.run([sys.executable, "-c", code, weights, card_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_openvino_refuses_fp32_weights_and_tells_how_int8_ones_are_made(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match=r"trainer quantize CARD\.json --manifest"):
        open_engine("openvino", *write_model(tmp_path))


def test_openvino_refuses_weights_that_only_call_themselves_int8(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="no quantized operation"):
        open_engine("openvino", *write_model(tmp_path, fp32_packed(), int8=True))


def int8_beside(folder: Path, origin: str) -> ModelCard:
    """Put the int8 network where the engine looks for it; its card."""
    (folder / "int8").mkdir()
    weights, card = write_model(folder / "int8", int8=True, training={"quantized_from": origin})
    weights.with_suffix(".json").write_text(card.to_json())
    return card


def test_openvino_finds_the_int8_weights_beside_and_records_which_it_ran(tmp_path: Path) -> None:
    weights, card = write_model(tmp_path)
    int8_card = int8_beside(tmp_path, origin=card.sha256)
    engine = open_engine("openvino", weights, card)
    assert engine.spec.weights_sha256 == int8_card.sha256
    fp32 = open_engine("onnx", weights, card).predict(crops(4))
    np.testing.assert_allclose(engine.predict(crops(4)).p_fake, fp32.p_fake, atol=0.02)


def test_openvino_refuses_int8_weights_made_from_other_weights(tmp_path: Path) -> None:
    weights, card = write_model(tmp_path)
    int8_beside(tmp_path, origin="a" * 64)
    with pytest.raises(BadModel, match="made from other weights"):
        open_engine("openvino", weights, card)


def test_openvino_refuses_int8_weights_that_were_damaged_since(tmp_path: Path) -> None:
    weights, card = write_model(tmp_path)
    int8_beside(tmp_path, origin=card.sha256)
    (tmp_path / "int8" / "known.zip").write_bytes(b"damaged")
    with pytest.raises(BadModel, match="sha256"):
        open_engine("openvino", weights, card)


@pytest.mark.parametrize("calling_threads", [1, 3])
def test_a_simulated_card_keeps_its_rate_however_many_threads_call_it(calling_threads: int) -> None:
    engine = SimulatedEngine(rate=200)
    started, burned = time.monotonic(), time.process_time()
    with ThreadPoolExecutor(calling_threads) as pool:
        list(pool.map(engine.predict, [crops(8)] * 9))
    assert time.monotonic() - started >= 72 / 200
    assert time.process_time() - burned < 72 / 200


def test_a_simulated_card_tells_crops_apart_by_any_byte() -> None:
    engine = SimulatedEngine(rate=10_000)
    one, other = crops(1), crops(1)
    other[0, 100, 100, 1] ^= 1
    assert engine.predict(one).logits[0] != engine.predict(other).logits[0]


def test_simulated_scores_spread_over_both_sides_with_masks_on_the_fake_one() -> None:
    answer = SimulatedEngine(rate=10_000).predict(crops(64))
    assert 10 < (answer.p_fake > 0.5).sum() < 54
    np.testing.assert_array_equal(answer.mask_area > 0, answer.p_fake > 0.5)


def test_a_simulated_card_told_to_die_stays_dead() -> None:
    engine = SimulatedEngine(rate=10_000, die_after_crops=10)
    engine.predict(crops(8))
    for _ in range(2):
        with pytest.raises(EngineBusy, match="died"):
            engine.predict(crops(8))


def test_a_simulated_card_told_to_hang_hangs_until_it_is_closed() -> None:
    engine = SimulatedEngine(rate=10_000, hang_after_crops=0)
    raised = threading.Event()

    def call() -> None:
        with pytest.raises(EngineBusy, match="closed"):
            engine.predict(crops(1))
        raised.set()

    thread = threading.Thread(target=call)
    thread.start()
    assert not raised.wait(0.2)
    engine.close()
    thread.join(5)
    assert raised.is_set()


def test_a_simulated_card_needs_a_rate(model: Model) -> None:
    with pytest.raises(BadInput, match="rate"):
        open_engine("simulated", *model("simulated"), rate=0)


def test_shipped_int8_weights_were_made_from_the_shipped_ones_and_agree_with_them() -> None:
    card = ModelCard.load(SHIPPED / "uynet-w16.json")
    fp32, int8 = (open_engine(name, SHIPPED / card.weights, card) for name in ("onnx", "openvino"))
    faces = astronaut_crops(12)
    ours, theirs = fp32.predict(faces), int8.predict(faces)
    np.testing.assert_allclose(theirs.p_fake, ours.p_fake, atol=0.15)
    assert np.abs(theirs.p_fake - ours.p_fake).mean() < 0.05
    assert (theirs.masks == ours.masks).mean() > 0.95


def astronaut_crops(count: int) -> Crops:
    """The face of the public-domain portrait that scikit-image carries, shifted and dimmed a little differently in each crop."""
    import skimage.data

    portrait = skimage.data.astronaut()
    shifts = range(0, 3 * count, 3)
    return np.stack(
        [(portrait[shift : shift + SIDE, 110 : 110 + SIDE] * (1 - shift / 200)).astype(np.uint8) for shift in shifts]
    )


def test_a_scan_may_ask_for_every_engine_that_there_is_and_for_no_other() -> None:
    assert set(ENGINE_NAMES) == set(ENGINES)
