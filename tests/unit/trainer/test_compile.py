"""From a quantized xmodel to a registered one, through real processes: the stand-in compiler, and the stand-in xir in an interpreter
of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from card_stand_in import FOLDER, StandInCard, known_network, python, write_quantized
from model_cards import model_card
from typer.testing import CliRunner
from unit.trainer.drawn_faces import patches

from farm.contracts import ModelCard
from farm.errors import BadInput, BadModel, EngineMissing
from farm.settings import settings
from trainer.cli import app
from trainer.compile import VARIANTS, Tools, compile_xmodel
from trainer.quantize import dpu_backend
from trainer.quantize.dpu_network import DpuNetwork

OUTPUTS = ("class_fix", "mask_fix")


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    """The stand-ins, with an arch.json of the 8PE."""
    return Tools(python(), (str(FOLDER),), str(FOLDER / "vai_c_xir"), write_arch(tmp_path, "8PE"))


def write_arch(folder: Path, variant: str) -> Path:
    path = folder / f"{variant}.json"
    path.write_text(json.dumps({"fingerprint": hex(VARIANTS[variant].fingerprint)}))
    return path


@pytest.fixture
def quantized(tmp_path: Path) -> Path:
    """The card of the known network, quantized."""
    return write_quantized(tmp_path, known_network(), OUTPUTS)


@pytest.fixture
def compiler_writes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have the stand-in compiler write something else."""
    return lambda **told: monkeypatch.setenv("STAND_IN_COMPILER", json.dumps(told))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_compiled_model_is_registered_with_what_the_card_must_know(
    variant: str, quantized: Path, tools: Tools, tmp_path: Path
) -> None:
    tools = dataclasses.replace(tools, arch=write_arch(tmp_path, variant))
    path, card = compile_xmodel(quantized, variant, tmp_path / "out", tools)
    wanted = VARIANTS[variant]
    assert ModelCard.load(path) == card
    assert card.dpu == {
        "fingerprint": hex(wanted.fingerprint),
        "dpu_name": wanted.dpu_name,
        "batch": wanted.batch,
        "input_fix_point": 7,
        "class_fix_point": 5,
        "mask_fix_point": 4,
    }
    assert (card.input_name, card.class_output, card.mask_output) == ("crops_fix", *OUTPUTS)
    assert card.training["compiled_from"] == ModelCard.load(quantized).sha256


def test_the_farms_engine_answers_on_a_compiled_network_what_the_arithmetic_said_to_the_bit(
    tiny_onnx: Path, tools: Tools, tmp_path: Path, stand_in_card: StandInCard
) -> None:
    card = model_card(weights="tiny.onnx", input_name="image", input_scale=1 / 64, input_offset=-2.0)
    made = dpu_backend.make(tiny_onnx, card, patches(4))
    network = DpuNetwork.from_bytes(made.content, "tiny")
    (tmp_path / "tiny.npz").write_bytes(made.content)
    digest = hashlib.sha256(made.content).hexdigest()
    (tmp_path / "tiny.json").write_text(dataclasses.replace(card, weights="tiny.npz", sha256=digest).to_json())
    weights: dict[str, Any] = {f"{name}.kernel": kernel for name, kernel in network.kernels.items()}
    weights |= {f"{name}.bias": bias for name, bias in network.biases.items()}
    outputs = (network.class_layer, network.mask_layer)
    layers = [dataclasses.asdict(layer) for layer in network.layers]
    quantized = write_quantized(tmp_path, (layers, weights), outputs, input_fix_point=network.input_fix_point)
    same_input = dataclasses.replace(ModelCard.load(quantized), input_scale=1 / 64, input_offset=-2.0)
    quantized.write_text(same_input.to_json())
    path, compiled = compile_xmodel(quantized, "8PE", tmp_path / "out", tools)

    engine = stand_in_card.open((path.with_name(compiled.weights), compiled))
    crops = patches(3, seed=9)
    on_card = engine.predict(crops)
    logits, masks = dpu_backend.open_scorer(tmp_path / "tiny.json").score(crops)
    np.testing.assert_array_equal(on_card.logits, logits)
    np.testing.assert_array_equal(on_card.masks, masks)
    assert len(np.unique(logits)) > 1


def test_the_command_prints_what_it_registered(
    quantized: Path, tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FARM_VART_PYTHON", tools.python)
    monkeypatch.setenv("FARM_VART_PATH", str(FOLDER))
    settings.cache_clear()
    words = [
        "compile",
        quantized,
        "--variant",
        "8PE",
        "--out",
        tmp_path / "out",
        "--arch",
        tools.arch,
        "--compiler",
        tools.compiler,
    ]
    done = CliRunner().invoke(app, [str(word) for word in words])
    settings.cache_clear()
    assert done.exit_code == 0, done.output
    assert "outputs class_fix, mask_fix; fingerprint 0x501000000140fee" in done.output
    assert (tmp_path / "out" / "known-8pe.json").exists()


def test_a_model_compiled_elsewhere_is_checked_and_registered(quantized: Path, tools: Tools, tmp_path: Path) -> None:
    made, _ = compile_xmodel(quantized, "8PE", tmp_path / "there", tools)
    here = dataclasses.replace(tools, compiler="not-here")
    _, card = compile_xmodel(quantized, "8PE", tmp_path / "here", here, compiled=made.with_suffix(".xmodel"))
    assert (tmp_path / "here" / card.weights).exists()
    with pytest.raises(BadModel, match=r"0x501000000140fee.*8PE.*asked for was 0x5010000001e082f.*arch\.json"):
        compile_xmodel(quantized, "4PE", tmp_path / "here", here, compiled=made.with_suffix(".xmodel"))


def test_a_missing_compiler_is_told_with_the_command_and_the_place_to_run_it(
    quantized: Path, tools: Tools, tmp_path: Path
) -> None:
    here = dataclasses.replace(tools, compiler="vai_c_xir-not-here", arch=None)
    with pytest.raises(EngineMissing) as raised:
        compile_xmodel(quantized, "6PE-DWC", tmp_path / "out", here)
    told = str(raised.value)
    assert "Vitis AI 3.0 container" in told
    assert re.search(
        r"vai_c_xir -x \S+known_int.xmodel -a /opt/vitis_ai/compiler/arch/DPUCVDX8H/VCK50006PEDWC/arch.json -o", told
    )
    assert "--compiled known-6pe-dwc.xmodel" in told


def test_a_missing_arch_is_told(quantized: Path, tools: Tools, tmp_path: Path) -> None:
    with pytest.raises(EngineMissing, match=r"no /opt/vitis_ai/\S+/VCK50004PE/arch\.json.*give --arch"):
        compile_xmodel(quantized, "4PE", tmp_path / "out", dataclasses.replace(tools, arch=None))


@pytest.mark.parametrize(("interpreter", "told"), [("", "set FARM_VART_PYTHON"), ("/gone/python", "cannot be run")])
def test_a_missing_interpreter_is_told(
    interpreter: str, told: str, quantized: Path, tools: Tools, tmp_path: Path
) -> None:
    with pytest.raises(EngineMissing, match=told):
        compile_xmodel(quantized, "8PE", tmp_path / "out", dataclasses.replace(tools, python=interpreter))


def test_an_interpreter_without_xir_is_told(quantized: Path, tools: Tools, tmp_path: Path) -> None:
    with pytest.raises(
        EngineMissing, match=r"no xir: .*set FARM_VART_PYTHON to the Python of the Vitis AI 3\.0 container"
    ):
        compile_xmodel(quantized, "8PE", tmp_path / "out", dataclasses.replace(tools, path=()))


def test_a_compiler_that_fails_is_told_with_its_last_words(
    quantized: Path, tools: Tools, tmp_path: Path, compiler_writes: Callable[..., None]
) -> None:
    compiler_writes(fails=3)
    with pytest.raises(BadModel, match=r"ended with 3 and wrote no model:\n.*The xcompiler meets an error"):
        compile_xmodel(quantized, "8PE", tmp_path / "out", tools)


def test_another_variant_does_not_exist(quantized: Path, tools: Tools, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="8PE, 6PE-DWC, 6PE-MISC, 4PE, not '5PE'"):
        compile_xmodel(quantized, "5PE", tmp_path / "out", tools)


def test_onnx_weights_are_told_to_be_quantized_first(tiny_onnx: Path, tools: Tools, tmp_path: Path) -> None:
    weights = tmp_path / "tiny.onnx"
    weights.write_bytes(tiny_onnx.read_bytes())
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    weights.with_suffix(".json").write_text(model_card(weights=weights.name, sha256=digest).to_json())
    with pytest.raises(BadModel, match=r"not quantized for a DPU.*no xmodel.*trainer quantize CARD --backend nndct"):
        compile_xmodel(weights.with_suffix(".json"), "8PE", tmp_path / "out", tools)


def test_a_float_xmodel_is_told_to_be_quantized_first(tools: Tools, tmp_path: Path) -> None:
    card = write_quantized(tmp_path, known_network(), OUTPUTS, operators=["data", "conv2d"])
    with pytest.raises(BadModel, match=r"is a float model.*trainer quantize CARD --backend nndct"):
        compile_xmodel(card, "8PE", tmp_path / "out", tools)


def test_a_missing_cut_or_foreign_xmodel_is_told(quantized: Path, tools: Tools, tmp_path: Path) -> None:
    xmodel = quantized.with_suffix(".xmodel")
    whole = xmodel.read_bytes()
    refused = [
        (whole[:-10], "cut short"),
        (b"", "is empty"),
        (
            b"\x0a\x08stand-in\x12\x01{",
            r"xir cannot read .* and aborted \(F\d+ stand_in\] Check failed: .*copy it again",
        ),
        (b"\x0a\x05other", "xir finds no operator in .*copy it again"),
    ]
    for content, told in refused:
        xmodel.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        quantized.write_text(dataclasses.replace(ModelCard.load(quantized), sha256=digest).to_json())
        with pytest.raises(BadModel, match=told):
            compile_xmodel(quantized, "8PE", tmp_path / "out", tools)
    xmodel.unlink()
    with pytest.raises(BadModel, match="cannot be read"):
        compile_xmodel(quantized, "8PE", tmp_path / "out", tools)
    xmodel.write_bytes(whole)
    with pytest.raises(BadModel, match="sha256"):
        compile_xmodel(quantized, "8PE", tmp_path / "out", tools)


DPU = {"device": "DPU", "runner": {"run": "x"}, "dpu_name": "x", "dpu_fingerprint": VARIANTS["8PE"].fingerprint}


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ({"subgraphs": []}, "has no DPU subgraph: it was quantized but never compiled"),
        (
            {"subgraphs": [DPU, {"device": "CPU", "operators": ["sigmoid", "upsample"]}, DPU]},
            "2 DPU subgraphs, expected one: the operators sigmoid, upsample fell to the CPU",
        ),
        (
            {"subgraphs": [{**DPU, "dpu_fingerprint": 0x5010000001E082F}]},
            r"0x5010000001e082f \(DPUCVDX8H_ISA1_F2W4_4PE\), asked for",
        ),
        ({"subgraphs": [{"device": "DPU"}]}, "fingerprint none, asked for"),
        (
            {"outputs": [{"name": "one", "dims": [1, 1, 1], "fix_point": 5}]},
            r"has 1 outputs \(one\), expected a class and a mask",
        ),
        (
            {"outputs": [{"name": name, "dims": [1, 1, 1], "fix_point": 5} for name in "ab"]},
            "no one quantized class output of 1 values",
        ),
        ({"input_dims": [128, 128, 3]}, "no one quantized input of 150528 values"),
        (
            {
                "outputs": [
                    {"name": "a", "dims": [1, 1, 1], "fix_point": None},
                    {"name": "b", "dims": [224, 224, 1], "fix_point": 3},
                ]
            },
            "no one quantized class output",
        ),
    ],
    ids=["none", "two", "another DPU", "no fingerprint", "one output", "two classes", "small", "float output"],
)
def test_a_compiled_model_that_no_card_could_run_is_refused_with_the_remedy(
    header: dict[str, Any],
    told: str,
    quantized: Path,
    tools: Tools,
    tmp_path: Path,
    compiler_writes: Callable[..., None],
) -> None:
    compiler_writes(header=header)
    with pytest.raises(BadModel, match=told):
        compile_xmodel(quantized, "8PE", tmp_path / "out", tools)
    assert not (tmp_path / "out" / "known-8pe.json").exists()
