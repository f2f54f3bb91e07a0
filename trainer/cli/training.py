"""The verb `train`."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from trainer.cli.app import app

MOST_WARMUP = 0.5
"""Share of a training in which the learning rate may rise before somebody is told."""


@app.command()
def train(
    config: Annotated[
        Path,
        typer.Argument(help="TOML file; trainer/configs/example.toml explains every key", exists=True, dir_okay=False),
    ],
    run: Annotated[
        Path | None,
        typer.Option(help="folder for checkpoints and curves (default: runs/NAME); a second start goes on from it"),
    ] = None,
    device: Annotated[str, typer.Option(help="instead of the file's: cpu, cuda, cuda:N")] = "",
    check: Annotated[
        bool, typer.Option(help="read the file, open device, data and first weights, look for leaks, and stop")
    ] = False,
    progress: Annotated[bool, typer.Option(help="print events as JSON lines instead of sentences")] = False,
) -> None:
    """Train a U-YNet, or go on where a training was stopped. Ctrl-C and SIGTERM save the training first."""
    from trainer.config import TrainConfig
    from trainer.train import check as check_training
    from trainer.train import train as train_network

    chosen = TrainConfig.load(config)
    if device:
        chosen = dataclasses.replace(chosen, run=dataclasses.replace(chosen.run, device=device))
    if check:
        feed = check_training(chosen)
        typer.echo(json.dumps(feed.facts | {"crops": feed.crops}, indent=2))
        return
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda caught, frame: asked.append(caught))

    ended = ""

    def tell(event: dict[str, Any]) -> None:
        nonlocal ended
        ended = event["event"]
        if event.get("warmup_share", 0) > MOST_WARMUP:
            words = f"warm-up takes {event['warmup_share']:.0%} of the training: lower optimiser.warmup_images"
            typer.echo(words, err=True)
        typer.echo(json.dumps(event) if progress else _sentence(event))

    train_network(chosen, run or Path("runs") / chosen.name, tell, lambda: bool(asked))
    if ended != "done" and signal.SIGINT in asked:
        typer.echo("the same command goes on from here", err=True)
        raise typer.Exit(130)


def _sentence(event: dict[str, Any]) -> str:
    kind = event["event"]
    if kind == "epoch":
        said = f"epoch {event['epoch']}/{event['epochs']}: loss {event['loss/total']:.3f}, "
        said += f"validation AUC {event['validation/frame_auc']:.3f}, mask IoU {event['validation/mask_iou']:.3f}, "
        return said + f"{event['images_per_second']:.0f} images/s"
    if kind == "checkpoint":
        return f"  {event['file']}"
    if kind == "halved":
        return f"no room on the device: a step is now {event['accumulate']} parts"
    return f"{kind}: epoch {event['epoch']}/{event['epochs']}, {event['images']} images, {event['precision']}"
