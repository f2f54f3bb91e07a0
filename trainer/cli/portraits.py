"""The verbs of the shipped demonstration weights: portraits in, ONNX and card out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.app import app

Faces = Annotated[Path, typer.Option(help="folder of portraits, one face each", exists=True, file_okay=False)]
Work = Annotated[
    Path, typer.Option(help="folder for the crop cache, checkpoints and logs; a second start goes on from it")
]
Out = Annotated[Path, typer.Option(help="folder for the ONNX file and its model card")]
Threads = Annotated[
    int, typer.Option(help="CPU threads of the training, beside one process that makes the pairs", min=1)
]
Images = Annotated[int, typer.Option(help="pictures to be seen, reals and fakes", min=1)]
Width = Annotated[int, typer.Option(help="base width W of the network: 16 is shipped, the seed's is 64", min=1, max=64)]
Seed = Annotated[int, typer.Option(help="seed of the weights and of the pairs")]
PairsFolder = Annotated[
    Path | None, typer.Option(help="folder with videos.csv and pairs/: measured, never learnt from", exists=True)
]
Origin = Annotated[
    str,
    typer.Option(help="for the model card: whose portraits they are and their licence, in words after 'N portraits'"),
]
WORK = Path("runs/demo")
UNSTATED = "whose origin and licence nobody stated"


@app.command()
def train(work: Work = WORK, images: Images = 78_000, width: Width = 16, seed: Seed = 7, threads: Threads = 1) -> None:
    """Train on a prepared cache, or go on with a training that was stopped."""
    from trainer import prepare as stage
    from trainer import splits
    from trainer import train as training

    rows, _ = splits.split(stage.load(work / "cache"))
    state = training.train(
        work / "cache", rows, work / "run", training.Recipe(width=width, images=images, seed=seed), threads
    )
    typer.echo(f"{state.step} steps done; weights in {work / 'run' / 'last.pt'}")


@app.command()
def evaluate(work: Work = WORK, pairs: PairsFolder = None, threads: Threads = 1) -> None:
    """Print the figures of the last checkpoint on held-out persons, and on video pairs if given, as JSON."""
    import torch

    from trainer import evaluate as measure
    from trainer import prepare as stage
    from trainer import splits, swap_pairs
    from trainer.dataset import PairMill
    from trainer.train import restore

    torch.set_num_threads(threads)
    state, _ = restore(work / "run" / "last.pt")
    _, rows = splits.split(stage.load(work / "cache"))
    mill = PairMill.open(work / "cache", rows)
    figures = {"validation": measure.summarise(measure.validate(state.average, mill, rows))}
    if pairs is not None:
        figures["swap_pairs"] = swap_pairs.report(state.average, pairs)
    typer.echo(json.dumps(figures, indent=2))


@app.command()
def export(
    out: Out, work: Work = WORK, version: str = "0.1", pairs: PairsFolder = None, origin: Origin = UNSTATED
) -> None:
    """Evaluate, calibrate on held-out persons, and write ONNX and card of the last checkpoint."""
    from trainer import demo

    card = demo.ship(work / "cache", work / "run" / "last.pt", out, pairs, version, origin)
    typer.echo(f"{out / card.weights} ({card.name} {card.version}, sha256 {card.sha256[:12]})")


@app.command("demo-weights")
def demo_weights(
    faces: Faces,
    out: Out,
    work: Work = WORK,
    images: Images = 78_000,
    seed: Seed = 7,
    pairs: PairsFolder = None,
    version: str = "0.1",
    origin: Origin = UNSTATED,
) -> None:
    """Reproduce the shipped demonstration weights: portraits in, ONNX and card out. About an hour of CPU time."""
    from trainer import demo
    from trainer.train import Recipe

    card = demo.demo_weights(faces, out, work, Recipe(images=images, seed=seed), pairs, version, origin, typer.echo)
    typer.echo(
        f"{out / card.weights}: validation AUC {card.metrics['validation']['frame_auc']}; a demonstration, trust it with nothing"
    )
