"""The verb `demo-weights`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.app import app


@app.command("demo-weights")
def demo_weights(
    faces: Annotated[Path, typer.Option(help="folder of portraits, one face each", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(help="folder for the ONNX files and the model card")],
    work: Annotated[
        Path, typer.Option(help="folder for crops, checkpoints and logs; a second start goes on from it")
    ] = Path("runs/demo"),
    images: Annotated[int, typer.Option(help="pictures to be seen, reals and fakes", min=32)] = 78_000,
    width: Annotated[int, typer.Option(help="base width W of the network", min=1, max=64)] = 16,
    seed: Annotated[int, typer.Option(help="seed of the weights and of the pairs")] = 7,
    threads: Annotated[
        int, typer.Option(help="CPU threads of the training, beside one process that makes pairs", min=1)
    ] = 1,
    processes: Annotated[int, typer.Option(help="processes that cut crops", min=1)] = 1,
    origin: Annotated[str, typer.Option(help="for the card: whose portraits they are, and their licence")] = "",
    looked_at: Annotated[
        Path | None, typer.Option(help="prepared set of real manipulations: measured, never learnt from", exists=True)
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(help="model card or checkpoint of an earlier call, to go on from", exists=True, dir_okay=False),
    ] = None,
) -> None:
    """Weights like the shipped ones: portraits in, ONNX and card out. An hour or two of CPU time. A demonstration."""
    from trainer import demo

    card = demo.demo_weights(
        faces,
        work,
        out,
        typer.echo,
        images=images,
        seed=seed,
        threads=threads,
        processes=processes,
        origin=origin,
        looked_at=looked_at,
        width=width,
        start_from=start_from,
    )
    typer.echo(
        f"{out / card.weights}: validation AUC {card.metrics['validation']['frame_auc']:.3f}; a demonstration, trust it with nothing"
    )
