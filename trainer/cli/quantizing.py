"""The verbs `quantize` and `compile`: from a model card to int8 weights for processors and for VCK5000 cards."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.cli.app import app

if TYPE_CHECKING:
    from trainer.quantize.report import Report


class BackendName(StrEnum):
    """What makes the int8 weights."""

    NNCF = "nncf"
    ORT = "ort"
    NNDCT = "nndct"


Calibration = Annotated[
    Path | None,
    typer.Option(help="prepared set to calibrate on; default: every second group of people of --manifest", exists=True),
]


@app.command()
def quantize(
    card: Annotated[Path, typer.Argument(help="model card of the float weights (.json)", exists=True, dir_okay=False)],
    manifest: Annotated[
        Path,
        typer.Option(
            help="prepared set with reals, fakes and masks, to measure on: people not trained on", exists=True
        ),
    ],
    backend: Annotated[
        BackendName,
        typer.Option(
            help="nncf: for the engine openvino; ort: for the engine onnx; nndct: the vendor's, for VCK5000 cards"
        ),
    ] = BackendName.NNCF,
    dpu_arithmetic: Annotated[
        bool,
        typer.Option(
            "--dpu-arithmetic",
            help="the network in a VCK5000's integers, without one (biases are not quite the vendor's); instead of --backend",
        ),
    ] = False,
    calibration: Calibration = None,
    calibration_crops: Annotated[int, typer.Option(help="crops to calibrate on, at most", min=20, max=1000)] = 300,
    side: Annotated[str, typer.Option(help="train, validation, test: that side of --manifest alone")] = "",
    allow_drop: Annotated[bool, typer.Option("--allow-drop", help="keep weights that cost more than a point")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads that measure", min=1)] = 1,
    out: Annotated[Path | None, typer.Option(help="nndct: folder for the vendor's Python", file_okay=False)] = None,
    device: Annotated[str, typer.Option(help="nndct: cpu or cuda:N, where the vendor's quantizer computes")] = "",
    fast_finetune: Annotated[
        bool, typer.Option("--fast-finetune", help="nndct: mend the weights layer by layer")
    ] = False,
    vendor_python: Annotated[
        str,
        typer.Option(
            help="nndct: the interpreter that has pytorch_nndct; without one the folder is written, with commands"
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print the report as one JSON object")] = False,
) -> None:
    """Make int8 weights, measure them beside the float ones on held-out crops, and write them and their card into `int8/`."""
    import numpy as np

    from trainer.manifest import CropSet
    from trainer.quantize import int8
    from trainer.splits import Split, as_side

    held = CropSet.open(manifest)
    rows = Split.open(held.folder).rows(held, as_side(side)) if side else np.arange(len(held))
    given = int8.material(held, rows, CropSet.open(calibration) if calibration else None, calibration_crops)
    if backend == BackendName.NNDCT and not dpu_arithmetic:
        from trainer.quantize import nndct_backend

        if out is None or not device:
            raise typer.BadParameter("--backend nndct needs --out FOLDER and --device cpu or cuda:N")
        vendor = nndct_backend.Vendor(vendor_python, device, fast_finetune)
        path, report = nndct_backend.quantize(card, given, out, vendor, allow_drop=allow_drop, threads=threads)
    else:
        name = "dpu" if dpu_arithmetic else backend.value
        path, report = int8.quantize(card, given, name, allow_drop=allow_drop, threads=threads)
    typer.echo(json.dumps({"card": str(path), **report.to_values()}) if as_json else _words(path, report))


@app.command("compile")
def compile_verb(
    card: Annotated[
        Path, typer.Argument(help="card that `trainer quantize --backend nndct` wrote", exists=True, dir_okay=False)
    ],
    variant: Annotated[str, typer.Option(help="the card's DPU: 8PE, 6PE-DWC, 6PE-MISC or 4PE, as its xclbin has it")],
    out: Annotated[Path, typer.Option(help="folder for the compiled model and its card", file_okay=False)],
    arch: Annotated[
        Path | None, typer.Option(help="arch.json of the DPU; default: the container's", exists=True)
    ] = None,
    compiler: Annotated[str, typer.Option(help="the vendor's compiler")] = "vai_c_xir",
    compiled: Annotated[
        Path | None, typer.Option(help="take what vai_c_xir wrote elsewhere", exists=True, dir_okay=False)
    ] = None,
    vendor_python: Annotated[str, typer.Option(help="the interpreter that has xir; default: FARM_VART_PYTHON")] = "",
) -> None:
    """Compile a quantized model for a VCK5000, check what came out, and write it with its model card."""
    from farm.settings import settings
    from trainer.compile import Tools, compile_xmodel

    given = settings()
    path = tuple(folder for folder in given.vart_path.split(":") if folder)
    tools = Tools(vendor_python or given.vart_python, path, compiler, arch)
    card_path, made = compile_xmodel(card, variant, out, tools, compiled)
    told = ", ".join(f"{key} {value}" for key, value in made.dpu.items())
    typer.echo(f"{made.name} {made.version}: outputs {made.class_output}, {made.mask_output}; {told}\n{card_path}")


def _words(path: Path, report: Report) -> str:
    lines = [f"{'':<10}{'float':>8}{'int8':>8}{'drop':>8}"]
    lines += [
        f"{name:<10}{report.full[name]:>8.4f}{report.quantized[name]:>8.4f}{fell:>8.4f}"
        for name, fell in report.drop.items()
    ]
    apart = report.apart
    lines.append(
        f"{apart['crops']} crops of {apart['groups']} groups; p_fake differs by {apart['p_fake_difference_mean']:.4f} on average"
    )
    return "\n".join([*lines, str(path)])
