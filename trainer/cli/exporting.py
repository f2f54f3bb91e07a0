"""The verb `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.app import app


@app.command()
def export(
    run: Annotated[
        Path, typer.Argument(help="run folder of `trainer train` (its best.pt) or a checkpoint", exists=True)
    ],
    out: Annotated[Path, typer.Option(help="folder for NAME.onnx, its two parts and NAME.json, the model card")],
    manifest: Annotated[
        list[Path] | None,
        typer.Option(
            help="prepared set of held-out people to calibrate on; default: the validation side of the training's sets"
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="find the training's sets where this configuration says; default: where they were", exists=True
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="folder for an evaluation of every set, with a page")] = None,
    name: Annotated[str, typer.Option(help="default: the training's")] = "",
    version: Annotated[str, typer.Option(help="default: the training's")] = "",
    origin: Annotated[str, typer.Option(help="for the card: whose pictures the data are, and their licence")] = "",
    demonstration: Annotated[
        bool, typer.Option(help="a demonstration's FAKE and REAL are worded as weak hints")
    ] = True,
) -> None:
    """Measure and calibrate on held-out people, then write ONNX, checked against torch, and the model card."""
    import numpy as np

    from trainer.checkpoint import read_checkpoint
    from trainer.config import TrainConfig
    from trainer.feed import held_out
    from trainer.manifest import CropSet
    from trainer.ship import ABSTAINS, Held, ship

    checkpoint = run / "best.pt" if run.is_dir() else run
    if manifest:
        sides = [(crops, np.arange(len(crops))) for crops in map(CropSet.open, manifest)]
    else:
        trained = TrainConfig.load(config) if config else TrainConfig.from_values(read_checkpoint(checkpoint)["config"])
        sides = held_out(trained)
    held = [Held(crops.folder.name, crops, rows) for crops, rows in sides]
    card = ship(
        checkpoint, out, held, name=name, version=version, origin=origin, demonstration=demonstration, report=report
    )
    for note in card.notes:
        if note.startswith(ABSTAINS):
            typer.echo(note, err=True)
    typer.echo(f"{out / card.name}.json ({card.name} {card.version}, sha256 {card.sha256[:12]})")
