"""From a quantized xmodel to one that a VCK5000 runs, with the model card that the farm's `vart` engine reads.

Drives the vendor's compiler, has what it wrote read by the vendor's `xir` in the vendor's interpreter, and judges it here: one DPU
subgraph, compiled for the DPU that was asked for, whose outputs are a class and a mask. Nothing of the vendor is imported.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from farm.contracts import CROP_SIDE_PX, ModelCard
from farm.errors import BadInput, BadModel, EngineMissing
from trainer.vendor import describe_xmodel
from workers.engines.weights import QUANTIZED_FROM, check_weights
from workers.engines.xmodel import xmodel_fault

LAST_LINES = 12
FATAL = re.compile(r"F\d{4,8} ")
"""How a fatal line of the vendor's logger begins: F and the date."""
QUANTIZE_FIRST = "quantize it with `trainer quantize CARD --backend nndct` and compile the card that this writes"
CONTAINER = "the Vitis AI 3.0 container (PyTorch), after `conda activate vitis-ai-pytorch`"


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the VCK5000's DPUs, as Vitis AI 3.0 has them."""

    dpu_name: str
    fingerprint: int
    #: pictures that one job takes
    batch: int
    #: folder of its arch.json below ARCHITECTURES
    folder: str


ARCHITECTURES = Path("/opt/vitis_ai/compiler/arch/DPUCVDX8H")
"""Where the vendor's container has them."""
VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "8PE": Variant("DPUCVDX8H_ISA1_F2W2_8PE", 0x501000000140FEE, 8, "VCK50008PE"),
        "6PE-DWC": Variant("DPUCVDX8H_ISA1_F2W4_6PE_aieDWC", 0x501000000160C2F, 6, "VCK50006PEDWC"),
        "6PE-MISC": Variant("DPUCVDX8H_ISA1_F2W4_6PE_aieMISC", 0x5010000001E082E, 6, "VCK50006PEMISC"),
        "4PE": Variant("DPUCVDX8H_ISA1_F2W4_4PE", 0x5010000001E082F, 4, "VCK50004PE"),
    }
)


@dataclass(frozen=True, slots=True)
class Tools:
    """Where the vendor's tools are."""

    #: the interpreter that has xir
    python: str
    #: folders for its module path
    path: tuple[str, ...] = ()
    compiler: str = "vai_c_xir"
    #: another arch.json than the container's
    arch: Path | None = None


def compile_xmodel(
    card_path: Path, variant: str, out: Path, tools: Tools, compiled: Path | None = None
) -> tuple[Path, ModelCard]:
    """Compile the quantized xmodel of a card into `out` and check it; the path of the card written beside it, and the card.

    `compiled`: what vai_c_xir wrote on another machine; it is checked, not made. Raises BadInput, EngineMissing with
    what to run where, and BadModel for a file that is missing, damaged, not quantized or compiled otherwise than asked for.
    """
    if variant not in VARIANTS:
        raise BadInput(f"a VCK5000 has the DPUs {', '.join(VARIANTS)}, not {variant!r}")
    card, wanted = ModelCard.load(card_path), VARIANTS[variant]
    xmodel = card_path.with_name(card.weights)
    check_quantized(xmodel, card, tools)
    out.mkdir(parents=True, exist_ok=True)
    stem = f"{xmodel.stem.removesuffix('_int')}-{variant.lower()}"
    made = compiled or _compiled(xmodel, wanted, out, stem, tools, card_path)
    subgraph = checked(made, describe(made, tools), wanted)
    target = out / f"{stem}.xmodel"
    if made.resolve() != target.resolve():
        shutil.copyfile(made, target)
    made_card = compiled_card(card, target, variant, subgraph)
    path = target.with_suffix(".json")
    path.write_text(made_card.to_json())
    return path, made_card


def check_quantized(xmodel: Path, card: ModelCard, tools: Tools) -> None:
    """Raise BadModel unless the card's weights are a whole xmodel that was quantized."""
    check_weights(xmodel, card)
    fault = xmodel_fault(xmodel)
    if fault or QUANTIZED_FROM not in card.training:
        raise BadModel(
            f"model {card.name} is not quantized for a DPU: {fault or 'its card names float weights'}; {QUANTIZE_FIRST}"
        )
    if not describe(xmodel, tools)["quantizing_operators"]:
        raise BadModel(f"{xmodel} is a float model, it has no fix point anywhere: {QUANTIZE_FIRST}")


def _compiled(xmodel: Path, variant: Variant, out: Path, stem: str, tools: Tools, card_path: Path) -> Path:
    """Run the vendor's compiler; the file it wrote."""
    arch = tools.arch or ARCHITECTURES / variant.folder / "arch.json"
    command = [tools.compiler, "-x", str(xmodel), "-a", str(arch), "-o", str(out), "-n", stem]
    elsewhere = (
        f"run in {CONTAINER}:\n    {' '.join(['vai_c_xir', *command[1:]])}\n"
        f"then here: trainer compile {card_path} --compiled {stem}.xmodel, with the file that it wrote"
    )
    if not shutil.which(tools.compiler):
        raise EngineMissing(f"the vendor's compiler {tools.compiler} is not on this machine: {elsewhere}")
    if not arch.exists():
        raise EngineMissing(
            f"there is no {arch} that describes the DPU {variant.dpu_name}: give --arch, or {elsewhere}"
        )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    made = out / f"{stem}.xmodel"
    if done.returncode or not made.exists():
        said = "\n".join((done.stdout + done.stderr).splitlines()[-LAST_LINES:])
        raise BadModel(f"`{' '.join(command)}` ended with {done.returncode} and wrote no model:\n{said}")
    return made


def describe(xmodel: Path, tools: Tools) -> dict[str, Any]:
    """What an xmodel holds, read by the vendor's xir in a process of its own. Raises EngineMissing or BadModel."""
    if not xmodel.exists():
        raise BadModel(f"there is no xmodel {xmodel}: copy it again, or compile it with vai_c_xir")
    if fault := xmodel_fault(xmodel):
        raise BadModel(fault)
    if not tools.python:
        raise EngineMissing(
            "reading an xmodel takes the vendor's xir: set FARM_VART_PYTHON (or --vendor-python) to the Python of "
            f"{CONTAINER}, and run this where that is"
        )
    command = [tools.python, str(Path(describe_xmodel.__file__)), str(xmodel), *tools.path]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise EngineMissing(f"{tools.python} cannot be run ({error.strerror}): see FARM_VART_PYTHON") from error
    if done.returncode < 0:
        raise BadModel(
            f"xir cannot read {xmodel} and aborted ({_reason(done.stderr)}): copy it again, or compile it with vai_c_xir"
        )
    if done.returncode:
        raise EngineMissing(
            f"{tools.python} cannot read xmodels ({done.stderr.strip()[-200:]}): set FARM_VART_PYTHON to the Python of {CONTAINER}"
        )
    told = dict(json.loads(done.stdout))
    if not told["operators"]:
        raise BadModel(f"xir finds no operator in {xmodel}: copy it again, or compile it with vai_c_xir")
    return told


def _reason(stderr: str) -> str:
    """Why the vendor's library aborted: its fatal line, which the title of a stack trace follows."""
    lines = stderr.strip().splitlines()
    return next((line for line in lines if FATAL.match(line)), "".join(lines[-1:]))


def checked(xmodel: Path, told: Mapping[str, Any], variant: Variant) -> dict[str, Any]:
    """The one DPU subgraph of a compiled model. Raises BadModel, with the remedy, for any other model."""
    found = [one for one in told["subgraphs"] if one["device"] == "DPU"]
    if not found:
        raise BadModel(
            f"{xmodel} has no DPU subgraph: it was quantized but never compiled, or the compiler put nothing on the DPU"
        )
    if len(found) > 1:
        fallen = sorted({kind for one in told["subgraphs"] if one["device"] == "CPU" for kind in one["operators"]})
        raise BadModel(
            f"{xmodel} has {len(found)} DPU subgraphs, expected one: the operators {', '.join(fallen) or 'between them'} fell to the CPU; "
            "export a U-YNet as the trainer has it, without operators of your own"
        )
    (subgraph,) = found
    fingerprint = subgraph["dpu_fingerprint"]
    if fingerprint != variant.fingerprint:
        have = "none" if fingerprint is None else f"{fingerprint:#x} ({_name(fingerprint)})"
        raise BadModel(
            f"{xmodel} has the DPU fingerprint {have}, asked for was {variant.fingerprint:#x} ({variant.dpu_name}): compile it with the "
            "arch.json of the DPU that the card's xclbin holds, compiler and xclbin of one Vitis AI release"
        )
    return dict(subgraph)


def _name(fingerprint: int) -> str:
    return next(
        (one.dpu_name for one in VARIANTS.values() if one.fingerprint == fingerprint), "no VCK5000 DPU of Vitis AI 3.0"
    )


def compiled_card(card: ModelCard, xmodel: Path, variant: str, subgraph: Mapping[str, Any]) -> ModelCard:
    """The card of a compiled model: the quantized one's, with the names and fix points of its tensors. Raises BadModel."""
    (image,) = _tensors(xmodel, subgraph["inputs"], CROP_SIDE_PX**2 * 3, 1, "input")
    if len(subgraph["outputs"]) != 2:
        names = ", ".join(one["name"] for one in subgraph["outputs"])
        raise BadModel(
            f"{xmodel} has {len(subgraph['outputs'])} outputs ({names}), expected a class and a mask: export both logits"
        )
    (class_logit,) = _tensors(xmodel, subgraph["outputs"], 1, 1, "class output")
    (mask_logit,) = _tensors(xmodel, subgraph["outputs"], CROP_SIDE_PX**2, 1, "mask output")
    wanted = VARIANTS[variant]
    return dataclasses.replace(
        card,
        name=f"{card.name}-{variant.lower()}",
        weights=xmodel.name,
        sha256=hashlib.sha256(xmodel.read_bytes()).hexdigest(),
        input_name=image["name"],
        class_output=class_logit["name"],
        mask_output=mask_logit["name"],
        training={**card.training, "compiled_from": card.sha256},
        dpu={
            "fingerprint": f"{wanted.fingerprint:#x}",
            "dpu_name": wanted.dpu_name,
            "batch": wanted.batch,
            "input_fix_point": image["fix_point"],
            "class_fix_point": class_logit["fix_point"],
            "mask_fix_point": mask_logit["fix_point"],
        },
    )


def _tensors(xmodel: Path, tensors: list[dict[str, Any]], size: int, count: int, what: str) -> list[dict[str, Any]]:
    """The tensors with so many values per picture. Raises BadModel unless there are `count`, quantized."""
    found = [one for one in tensors if math.prod(one["dims"][1:]) == size and one["fix_point"] is not None]
    if len(found) != count:
        shapes = ", ".join(f"{one['name']} {one['dtype']} {one['dims']}" for one in tensors)
        raise BadModel(
            f"{xmodel} has no one quantized {what} of {size} values per picture, but {shapes}: quantize a U-YNet and compile it"
        )
    return found
