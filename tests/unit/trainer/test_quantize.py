"""int8 weights: made by every backend, measured beside the float ones, kept or refused."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from card_stand_in import FOLDER
from model_cards import model_card
from typer.testing import CliRunner
from unit.trainer.drawn_faces import patches

from farm.contracts import ModelCard
from farm.errors import BadInput, BadModel, EngineMissing
from trainer.cli import app
from trainer.evaluate import Evaluation
from trainer.manifest import CropSet
from trainer.quantize import int8, nndct_backend
from trainer.quantize.int8 import Material, material
from trainer.quantize.report import compared
from trainer.vendor import describe_xmodel, nndct_quantize
from workers.engines import open_engine

CARD = model_card(weights="tiny.onnx", input_name="image", input_scale=1 / 64, input_offset=-2.0)


@pytest.fixture
def card(tiny_onnx: Path, tmp_path: Path) -> Path:
    """Card and weights of the tiny network in a folder to write into."""
    weights = tmp_path / "model" / "tiny.onnx"
    weights.parent.mkdir()
    shutil.copyfile(tiny_onnx, weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    weights.with_suffix(".json").write_text(dataclasses.replace(CARD, sha256=digest).to_json())
    return weights.with_suffix(".json")


def given(aligned: Path, calibration: int = 24) -> Material:
    crops = CropSet.open(aligned)
    return Material(patches(calibration), crops, np.array([0, 1, 2, 3, 4, 5]))


@pytest.mark.parametrize(("backend", "engine"), [("nncf", "openvino"), ("ort", "onnx")])
def test_int8_weights_run_on_their_engine_and_answer_as_the_ones_they_came_from(
    backend: str, engine: str, card: Path, aligned: Path
) -> None:
    path, report = int8.quantize(card, given(aligned), backend, allow_drop=True)
    full, quantized = ModelCard.load(card), ModelCard.load(path)
    assert quantized.training["quantized_from"] == full.sha256
    assert quantized.metrics["int8_against_float"]["drop"] == report.drop
    crops = patches(8, seed=7)
    ours = open_engine(engine, path.with_name(quantized.weights), quantized)
    theirs = open_engine("onnx", card.with_name(full.weights), full).predict(crops)
    assert ours.spec.precision == "int8"
    # Two channels wide, it has little to average rounding over; what is checked is that the answers are those of these weights.
    assert np.corrcoef(ours.predict(crops).logits, theirs.logits)[0, 1] > 0.9
    if backend == "nncf":
        assert open_engine("openvino", card.with_name(full.weights), full).spec.weights_sha256 == quantized.sha256


def test_the_command_tells_what_a_card_would_answer_without_one(card: Path, aligned: Path) -> None:
    words = ["quantize", card, "--manifest", aligned, "--dpu-arithmetic", "--allow-drop", "--json"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    assert set(told["drop"]) == set(told["float"]) == {"accuracy", "auc", "iou"}
    assert (told["crops"], told["groups"]) == (12, 1)
    made = ModelCard.load(Path(told["card"]))
    assert made.weights == "tiny-dpu.npz" and made.dpu["input_fix_point"] == 6


def evaluation(logits: list[float], iou: float) -> Evaluation:
    n = len(logits)
    fake = np.arange(n) % 2 == 1
    text, some = np.array([str(i) for i in range(n)]), np.where(fake, iou, np.nan)
    return Evaluation(text, np.arange(n), text, text, fake, np.array(logits), some, some, some, some)


def test_a_drop_of_more_than_a_point_is_refused_unless_it_is_allowed() -> None:
    full = evaluation([-1.0, 1.0] * 50, 0.8)
    report = compared(full, evaluation([-1.0, 1.0] * 49 + [2.0, 1.0], 0.8), CARD)
    assert report.drop == {"accuracy": 0.01, "auc": 0.02, "iou": 0.0}
    with pytest.raises(BadModel, match=r"more than 1% of auc 1\.0000 -> 0\.9800, so nothing was kept.*--allow-drop"):
        report.check("tiny", allow_drop=False)
    report.check("tiny", allow_drop=True)
    compared(full, evaluation([-1.0, 1.0] * 50, 0.79), CARD).check("tiny", allow_drop=False)
    with pytest.raises(BadModel, match=r"iou 0\.8000 -> 0\.7890"):
        compared(full, evaluation([-1.0, 1.0] * 50, 0.789), CARD).check("tiny", allow_drop=False)


def test_nothing_is_written_where_the_drop_is_refused(
    card: Path, aligned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.quantize.report.MOST_DROP", -2.0)
    with pytest.raises(BadModel, match="nothing was kept"):
        int8.quantize(card, given(aligned), "dpu")
    assert not (card.parent / "int8").exists()


def test_crops_of_one_label_cannot_tell_what_int8_costs(portraits: Path) -> None:
    full = evaluation([-1.0, 1.0], np.nan)
    with pytest.raises(BadInput, match=r"need reals, fakes and the fakes' masks.*make-fakes"):
        compared(full, full, CARD)


def test_people_who_calibrate_are_not_measured_on(aligned: Path, portraits: Path) -> None:
    held = CropSet.open(aligned)
    chosen = material(held, np.arange(len(held)), None, 300)
    groups = held.column("group")
    assert set(groups[chosen.rows]) == {"g1"} and len(chosen.calibration) == 24
    apart = material(held, np.arange(len(held)), CropSet.open(portraits), 20)
    assert len(apart.calibration) == 20 and len(apart.rows) == len(held)
    with pytest.raises(BadInput, match="6 crops are too few"):
        material(held, np.arange(12), None, 6)


def vendor(python: str = sys.executable, device: str = "cpu", fast_finetune: bool = True) -> nndct_backend.Vendor:
    return nndct_backend.Vendor(python, device, fast_finetune)


@pytest.fixture
def _nndct(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in for pytorch_nndct where the vendor's interpreter looks."""
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.usefixtures("_nndct")
def test_the_vendors_quantizer_calibrates_answers_and_exports(card: Path, aligned: Path, tmp_path: Path) -> None:
    path, report = nndct_backend.quantize(card, given(aligned, 100), tmp_path / "out", vendor(), allow_drop=True)
    made = ModelCard.load(path)
    assert made.weights == "tiny_int.xmodel" and made.training["quantized_with"] == "vai_q_pytorch, fast fine-tuned"
    assert made.sha256 == hashlib.sha256((tmp_path / "out" / "tiny_int.xmodel").read_bytes()).hexdigest()
    assert report.apart["crops"] == 6 and report.apart["p_fake_difference_mean"] < 0.05
    # Carried elsewhere and back: the answers are taken as they are, by whoever has no interpreter.
    again, same = nndct_backend.quantize(card, given(aligned, 100), tmp_path / "out", vendor(""), allow_drop=True)
    assert (again, same) == (path, report)
    with pytest.raises(EngineMissing):
        nndct_backend.quantize(card, given(aligned, 101), tmp_path / "out", vendor(""), allow_drop=True)


@pytest.fixture
def _nndct_here(_nndct: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stand-in for this process too; afterwards it has none again."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "pytorch_nndct"]:
        del sys.modules[name]


def ask(folder: Path, monkeypatch: pytest.MonkeyPatch, mode: str, *words: str) -> None:
    """Run the script in this process, as `python nndct_quantize.py` would."""
    said = ["nndct_quantize.py", "--quant_mode", mode, "--device", "cpu", "--folder", str(folder), *words]
    monkeypatch.setattr(sys, "argv", said)
    nndct_quantize.main()


@pytest.mark.usefixtures("_nndct")
@pytest.mark.parametrize(
    ("done", "asked", "told"),
    [
        (True, False, "was made with --fast_finetune: run this with it, or calibrate again"),
        (False, True, "was made without --fast_finetune: run this without it, or calibrate again"),
    ],
)
def test_a_calibration_with_and_one_without_fine_tuning_are_not_mixed_up(
    done: bool, asked: bool, told: str, card: Path, aligned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    nndct_backend.quantize(card, given(aligned, 100), out, vendor(fast_finetune=done), allow_drop=True)
    with pytest.raises(EngineMissing):
        nndct_backend.quantize(card, given(aligned, 100), out, vendor("", fast_finetune=asked))
    with pytest.raises(SystemExit, match=told):
        ask(out, monkeypatch, "test", *(["--fast_finetune"] if asked else []))


@pytest.mark.usefixtures("_nndct_here")
def test_answers_and_calibrations_are_taken_for_what_they_were_made_of_alone(
    card: Path, aligned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, plain = tmp_path / "out", vendor("", fast_finetune=False)
    fewer = dataclasses.replace(given(aligned, 100), rows=np.array([0, 1, 2, 3]))
    nndct_backend.quantize(card, given(aligned, 100), out, vendor(fast_finetune=False), allow_drop=True)
    # The same calibration answers other crops, and the same crops with masks cut elsewhere.
    with pytest.raises(EngineMissing):
        nndct_backend.quantize(card, fewer, out, plain, allow_drop=True)
    ask(out, monkeypatch, "test")
    nndct_backend.quantize(card, fewer, out, plain, allow_drop=True)
    card.write_text(dataclasses.replace(ModelCard.load(card), mask_threshold=0.7).to_json())
    with pytest.raises(EngineMissing):
        nndct_backend.quantize(card, fewer, out, plain, allow_drop=True)
    ask(out, monkeypatch, "test")
    nndct_backend.quantize(card, fewer, out, plain, allow_drop=True)
    # It is none of a network that was calibrated on other crops.
    with pytest.raises(EngineMissing):
        nndct_backend.quantize(card, given(aligned, 101), out, plain)
    with pytest.raises(SystemExit, match="no calibration of this network on these crops"):
        ask(out, monkeypatch, "test")


@pytest.mark.usefixtures("_nndct")
@pytest.mark.parametrize("kept", [0, 0.5], ids=["empty", "cut"])
def test_answers_that_were_cut_short_are_asked_for_again(
    kept: float, card: Path, aligned: Path, tmp_path: Path
) -> None:
    plain = vendor(fast_finetune=False)
    _, report = nndct_backend.quantize(card, given(aligned, 100), tmp_path, plain, allow_drop=True)
    answers = tmp_path / nndct_quantize.ANSWERS
    whole = answers.read_bytes()
    answers.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(EngineMissing):
        nndct_backend.quantize(card, given(aligned, 100), tmp_path, dataclasses.replace(plain, python=""))
    assert nndct_backend.quantize(card, given(aligned, 100), tmp_path, plain, allow_drop=True)[1] == report


@pytest.mark.usefixtures("_nndct_here")
def test_a_calibration_that_is_stopped_leaves_none(
    card: Path, aligned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = vendor(fast_finetune=False)
    nndct_backend.quantize(card, given(aligned, 100), tmp_path, plain, allow_drop=True)
    monkeypatch.setattr(nndct_quantize, "run", _stop)
    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path, monkeypatch, "calib")
    monkeypatch.undo()
    with pytest.raises(SystemExit, match="run --quant_mode calib first"):
        ask(tmp_path, monkeypatch, "test")


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_missing_vendor_is_told_with_what_to_run_where(card: Path, aligned: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineMissing) as raised:
        nndct_backend.quantize(card, given(aligned, 100), tmp_path / "out", vendor("", "cuda:0"))
    told = str(raised.value)
    assert "Vitis AI 3.0 container" in told and f"Copy the folder {tmp_path / 'out'}" in told
    for mode in ("calib", "test"):
        assert f"python nndct_quantize.py --quant_mode {mode} --device cuda:0 --fast_finetune" in told
    assert (tmp_path / "out" / "nndct_quantize.py").exists()


def test_the_vendors_quantizer_wants_100_to_1000_crops(card: Path, aligned: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="24 calibration crops, the vendor's quantizer wants 100 to 1000"):
        nndct_backend.quantize(card, given(aligned), tmp_path / "out", vendor())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--quant_mode", "test", "--device", "cpu"], "run --quant_mode calib first"),
        (["--quant-mode", "calib", "--device", "cpu"], "has no pytorch_nndct"),
        (["--quant_mode", "calib", "--device", "cuda:0"], "no CUDA device is here"),
    ],
    ids=["test before calib", "no pytorch_nndct", "no CUDA"],
)
def test_the_script_tells_what_it_lacks(
    words: list[str], told: str, card: Path, aligned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineMissing):
        nndct_backend.quantize(card, given(aligned, 100), tmp_path / "out", vendor(""))
    monkeypatch.setattr(sys, "argv", ["nndct_quantize.py", *words, "--folder", str(tmp_path / "out")])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match=told):
        nndct_quantize.main()


def test_the_script_chooses_no_device_silently(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["nndct_quantize.py", "--quant_mode", "calib"])
    with pytest.raises(SystemExit):
        nndct_quantize.main()
    assert "required: --device" in capsys.readouterr().err


def test_int8_weights_are_not_quantized_again(card: Path, aligned: Path) -> None:
    int8_card = dataclasses.replace(ModelCard.load(card), training={"quantized_from": "0" * 64})
    card.write_text(int8_card.to_json())
    with pytest.raises(BadInput, match="is the card of int8 weights"):
        int8.quantize(card, given(aligned), "nncf")


@pytest.mark.parametrize("module", [nndct_quantize, describe_xmodel])
def test_what_runs_in_the_vendors_interpreter_is_python_3_8_and_imports_nothing_of_ours(module: object) -> None:
    source = Path(module.__file__).read_text()  # type: ignore[attr-defined]
    tree = ast.parse(source, feature_version=(3, 8))
    nodes = list(ast.walk(tree))
    named = {node.module.split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    named |= {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert named - set(sys.stdlib_module_names) <= {"numpy", "torch", "pytorch_nndct", "xir"}
    assert "from __future__ import annotations" in source
    assert not [
        node for node in nodes if isinstance(node, ast.Attribute) and node.attr in ("removeprefix", "removesuffix")
    ]
