"""The verb `quantize`."""

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


@app.command()
def quantize(
    card: Annotated[Path, typer.Argument(help="model card of the float weights (.json)", exists=True, dir_okay=False)],
    manifest: Annotated[
        Path, typer.Option(help="prepared set with reals, fakes and masks, to measure on: people not trained on", exists=True)
    ],
    backend: Annotated[
        BackendName, typer.Option(help="nncf: for the engine openvino; ort: for the engine onnx")
    ] = BackendName.NNCF,
    dpu_arithmetic: Annotated[
        bool, typer.Option("--dpu-arithmetic", help="what a VCK5000 would answer, bit for bit, without one; instead of --backend")
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(help="prepared set to calibrate on; default: every second group of people of --manifest", exists=True),
    ] = None,
    calibration_crops: Annotated[int, typer.Option(help="crops to calibrate on, at most", min=20, max=1000)] = 300,
    side: Annotated[str, typer.Option(help="train, validation, test: that side of --manifest alone")] = "",
    allow_drop: Annotated[bool, typer.Option("--allow-drop", help="keep weights that cost more than a point")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads that measure", min=1)] = 1,
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
    name = "dpu" if dpu_arithmetic else backend.value
    path, report = int8.quantize(card, given, name, allow_drop=allow_drop, threads=threads)
    typer.echo(json.dumps({"card": str(path), **report.to_values()}) if as_json else _words(path, report))


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
