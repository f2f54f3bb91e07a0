"""The verbs `evaluate` and `compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.app import app


@app.command()
def evaluate(
    manifest: Annotated[Path, typer.Option(help="prepared set: its folder or manifest", exists=True)],
    model: Annotated[str, typer.Option(help="model card (.json), name of a shipped model, or checkpoint (.pt)")],
    engine: Annotated[
        str,
        typer.Option(
            help="onnx, openvino, vart or simulated; a checkpoint has torch alone. Default: torch for one, else onnx."
        ),
    ] = "",
    side: Annotated[
        str, typer.Option(help="train, validation, test: that side of the set's split alone; default: every crop")
    ] = "",
    split: Annotated[
        Path | None, typer.Option(help="split to take the side from; default: the one beside the manifest")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for index.html, evaluation.json and predictions.parquet")
    ] = None,
    batch: Annotated[int, typer.Option(help="crops per call", min=1)] = 32,
    threads: Annotated[int, typer.Option(help="CPU threads", min=1)] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda:N, or a card, where the engine has several")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="print every figure as one JSON object")] = False,
) -> None:
    """Measure a network on a prepared set: AUC, errors, calibration and masks, with 95 % intervals over groups of people."""
    import numpy as np

    from farm.contracts import ENGINE_NAMES
    from trainer import evaluate as stage
    from trainer.evaluation_page import write_report
    from trainer.manifest import CropSet
    from trainer.scoring import TORCH, open_scorer
    from trainer.splits import SIDES, Split

    crops = CropSet.open(manifest)
    if side and side not in SIDES:
        raise typer.BadParameter(f"{side!r} is none of {', '.join(SIDES)}", param_hint="--side")
    if engine and engine not in (TORCH, *ENGINE_NAMES):
        raise typer.BadParameter(f"{engine!r} is none of {TORCH}, {', '.join(ENGINE_NAMES)}", param_hint="--engine")
    rows = Split.open(split or crops.folder).rows(crops, side) if side else np.arange(len(crops))
    scorer = open_scorer(model, engine, threads, device)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)  # before hours of scoring, not after
    try:
        found = stage.evaluate(crops, rows, scorer, batch)
        told = stage.figures(found, scorer.temperature, scorer.bias, scorer.threshold)
        told |= {"scored_by": scorer.facts, "set": crops.folder.name, "side": side or "all"}
        if out is not None:
            write_report(told, found, crops, rows, scorer, out)
    finally:
        scorer.close()
    typer.echo(json.dumps(told) if as_json else _sentences(told))


@app.command()
def compare(
    old: Annotated[Path, typer.Argument(help="folder of `evaluate --out`", exists=True)],
    new: Annotated[Path, typer.Argument(help="folder of `evaluate --out`, on the same crops", exists=True)],
) -> None:
    """Print the differences between two evaluations of the same crops as JSON, with paired 95 % intervals over groups."""
    from trainer.compare import compare as difference
    from trainer.evaluate import read_predictions

    typer.echo(json.dumps(difference(read_predictions(old), read_predictions(new)), indent=2))


def _sentences(told: dict[str, object]) -> str:
    lines = []
    for name in ("frame", "video"):
        one = told[name]
        assert isinstance(one, dict)
        interval = "" if one["auc_95"] is None else f" [{one['auc_95'][0]:.3f}, {one['auc_95'][1]:.3f}]"
        auc = "not measured" if one["auc"] is None else f"{one['auc']:.3f}{interval}"
        lines.append(f"by {name}: AUC {auc}; right {one['right']}, wrong {one['wrong']} at p >= {one['threshold']}")
    mask = told["mask"]
    assert isinstance(mask, dict)
    if mask["iou"] is not None:
        lines.append(f"mask IoU {mask['iou']:.3f}, Dice {mask['dice']:.3f}; a fixed ellipse {mask['ellipse_iou']:.3f}")
    return "\n".join(lines)
