"""Quantizing with the vendor's `pytorch_nndct`: a folder for its Python 3.8, and what came back of it.

The folder holds the network, the crops and the script that quantizes; it can be carried to a machine with the vendor's container and
back. Nothing of the vendor is imported here. N crops.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from farm.contracts import CROP_SIDE_PX, ModelCard
from farm.errors import BadInput, BadModel, EngineMissing
from trainer.quantize.int8 import Material, evaluated, float_weights, int8_card
from trainer.quantize.layers import DAMAGED_NPZ, read_onnx
from trainer.quantize.made import Made
from trainer.quantize.report import Report, compared
from trainer.scoring import Scorer, open_scorer
from trainer.vendor import nndct_quantize as script
from workers.engines.base import mask_cut, predictions

XMODEL = f"{script.RESULT}/{script.XMODEL}"
LAST_LINES = 12


@dataclass(frozen=True, slots=True)
class Vendor:
    """Where the vendor's quantizer runs."""

    #: its interpreter; empty where it is on another machine
    python: str
    #: cpu or cuda:N, as torch names it
    device: str
    fast_finetune: bool = False


def quantize(
    card_path: Path, given: Material, folder: Path, vendor: Vendor, *, allow_drop: bool = False, threads: int = 1
) -> tuple[Path, Report]:
    """Write `folder`, have it quantized there, measure the answers, and write NAME_int.xmodel and its card into it.

    A second call with the same weights, crops and fine-tuning takes the answers that it finds. Raises BadInput for fewer than 100
    calibration crops, EngineMissing, with the commands to run elsewhere, where `vendor` names no interpreter, and BadModel where the
    vendor's tool fails or a figure falls by more than a point.
    """
    weights, card = float_weights(card_path)
    held = np.stack([given.held.crop(int(row)) for row in given.rows])
    key = _write(folder, weights, card, given.calibration, held)
    if not _answered(folder, key, vendor):
        _run(folder, vendor, key)
    xmodel = folder / XMODEL
    if not xmodel.exists():
        raise BadModel(f"the vendor's quantizer left no {xmodel}: run it again and read what it says")
    full = evaluated(open_scorer(str(card_path), "onnx", threads), given)
    report = compared(full, evaluated(_replayed(folder, card), given), card)
    report.check(card.name, allow_drop=allow_drop)
    finetuned = ", fast fine-tuned" if vendor.fast_finetune else ""
    made = Made(xmodel.read_bytes(), ".xmodel", f"vai_q_pytorch{finetuned}")
    quantized = int8_card(card, made, f"{weights.stem}_int.xmodel", "-nndct", given, report)
    shutil.copyfile(xmodel, folder / quantized.weights)
    path = folder / f"{weights.stem}_int.json"
    path.write_text(quantized.to_json())
    return path, report


def _write(
    folder: Path, weights: Path, card: ModelCard, calibration: NDArray[np.uint8], held: NDArray[np.uint8]
) -> str:
    """The folder's content; a digest of all that the answers hang on, which they must name."""
    if not script.FEWEST <= len(calibration) <= script.MOST:
        raise BadInput(
            f"{len(calibration)} calibration crops, the vendor's quantizer wants {script.FEWEST} to {script.MOST}: "
            "see --calibration and --calibration-crops"
        )
    network = read_onnx(weights, card)
    header: dict[str, Any] = {
        "layers": [asdict(layer) for layer in network.layers],
        "class_layer": network.class_layer,
        "mask_layer": network.mask_layer,
        "input_scale": card.input_scale,
        "input_offset": card.input_offset,
    }
    header["calibrated"] = _digest(card.sha256.encode(), json.dumps(header).encode(), calibration.tobytes())
    header["mask_cut"] = mask_cut(card)
    header["sha256"] = _digest(json.dumps(header).encode(), held.tobytes())
    arrays = {f"{name}.kernel": kernel for name, kernel in network.kernels.items()}
    arrays |= {f"{name}.bias": bias for name, bias in network.biases.items()}
    folder.mkdir(parents=True, exist_ok=True)
    encoded = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(folder / script.NETWORK, header=encoded, **arrays)  # type: ignore[arg-type]  # names are of layers
    np.save(folder / script.CALIBRATION, calibration)
    np.save(folder / script.HELD_OUT, held)
    shutil.copyfile(script.__file__, folder / Path(script.__file__).name)
    return str(header["sha256"])


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _answered(folder: Path, key: str, vendor: Vendor) -> bool:
    """Whether the folder holds answers to exactly what it asks, by a network made as it is to be."""
    try:
        # opened here, for numpy leaves a file that is no archive open
        with (folder / script.ANSWERS).open("rb") as file, np.load(file) as answers:
            return (str(answers["network"]), bool(answers["fast_finetuned"])) == (key, vendor.fast_finetune)
    except DAMAGED_NPZ:
        return False


def commands(vendor: Vendor, python: str = "python") -> list[list[str]]:
    """What is to be run in the folder, by the vendor's interpreter."""
    finetune = ["--fast_finetune"] if vendor.fast_finetune else []
    name = Path(script.__file__).name
    return [[python, name, "--quant_mode", mode, "--device", vendor.device, *finetune] for mode in ("calib", "test")]


def _run(folder: Path, vendor: Vendor, key: str) -> None:
    if not vendor.python:
        lines = "\n".join("    " + " ".join(command) for command in commands(vendor))
        raise EngineMissing(
            f"the vendor's quantizer is not on this machine. Copy the folder {folder} to one with the Vitis AI 3.0 container for "
            f"PyTorch, and there, after `conda activate vitis-ai-pytorch`, run in it:\n{lines}\n"
            "Copy it back and give this command again; or name the interpreter that has pytorch_nndct with --vendor-python"
        )
    for command in commands(vendor, vendor.python):
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        except OSError as error:
            raise EngineMissing(f"{vendor.python} cannot be run ({error.strerror}): see --vendor-python") from error
        if done.returncode:
            said = "\n".join((done.stdout + done.stderr).splitlines()[-LAST_LINES:])
            raise BadModel(f"`{' '.join(command)}` in {folder} ended with {done.returncode}:\n{said}")
    if not _answered(folder, key, vendor):
        raise BadModel(f"the vendor's quantizer left no answers in {folder}: run it again and read what it says")


def _replayed(folder: Path, card: ModelCard) -> Scorer:
    """A scorer that gives the answers in the order in which the crops were written."""
    with np.load(folder / script.ANSWERS) as answers:
        logits, packed = answers["logits"], answers["masks"]
    masks = np.unpackbits(packed, axis=-1).reshape(len(logits), CROP_SIDE_PX, CROP_SIDE_PX)
    parts: Iterator[int] = iter(range(len(logits)))

    def score(crops: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        rows = [next(parts) for _ in crops]
        said = predictions(logits[rows], masks[rows], card, cut=0.5)
        return said.logits.astype(np.float64), said.masks

    facts: dict[str, Any] = {"model": card.name, "engine": "nndct"}
    return Scorer(score, lambda: None, facts, card.temperature, card.bias, card.threshold, card)
