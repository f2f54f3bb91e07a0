"""The command that evaluates an engine on labelled face crops: it hands over to the process that knows engines."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from farm.cli.options import AsJson


def evaluate(
    images: Annotated[
        Path,
        typer.Option(
            "--images", help="Folder of face crops; those of another size than 224 x 224 are resized.", file_okay=False
        ),
    ],
    labels: Annotated[
        Path,
        typer.Option(
            "--labels", help='JSON as DFDC has it, {"NAME": {"label": "FAKE"}}; a video\'s name serves its crop.'
        ),
    ],
    engine: Annotated[
        str, typer.Option("--engine", help="onnx, openvino, vart or simulated. Default: FARM_ENGINE, else onnx.")
    ] = "",
    model: Annotated[
        str, typer.Option("--model", help="A model card's path. Default: FARM_MODEL, else the shipped one.")
    ] = "",
    card: Annotated[str, typer.Option("--card", help="The one card to use, where an engine has several.")] = "",
    threads: Annotated[
        int,
        typer.Option(
            "-t",
            "--threads",
            help="Callers at once: so many crops are read, and given to the engine, at the same time. "
            "CPU engines: one core each. vart: 2 keep a card busy; they share its FARM_VART_JOBS.",
            min=1,
        ),
    ] = 1,
    out: Annotated[
        Path, typer.Option("--out", help="Where class.npy, mask.npy and crops.csv go.", file_okay=False)
    ] = Path("evaluation"),
    as_json: AsJson = False,
) -> None:
    """Score a folder of labelled face crops in this process: right, wrong, accuracy, crops per second. No farm is needed."""
    command = [sys.executable, "-m", "workers.evaluate", "--images", str(images), "--labels", str(labels)]
    command += ["--threads", str(threads), "--out", str(out)]
    command += ["--engine", engine] if engine else []
    command += ["--model", model] if model else []
    command += ["--card", card] if card else []
    command += ["--json"] if as_json else []
    sys.stdout.flush()
    os.execv(command[0], command)
