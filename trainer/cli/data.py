"""The verbs between a prepared set and a training: split, redraw, make-fakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from trainer.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainer.manifest import CropSet
    from trainer.splits import Split

Folders = Annotated[
    list[Path], typer.Argument(help="prepared sets that are used together; they get one split", exists=True)
]
Folder = Annotated[Path, typer.Argument(help="a prepared set", exists=True, file_okay=False)]
LEAKS_SHOWN = 20


@app.command()
def split(
    folders: Folders,
    validation: Annotated[float, typer.Option(help="share of the components to validate on", min=0, max=1)] = 0.15,
    test: Annotated[float, typer.Option(help="share of the components kept for the end", min=0, max=1)] = 0.0,
    by: Annotated[str, typer.Option(help="component; video or frame leak, and only show how much a leak flatters")] = (
        "component"
    ),
    seed: Annotated[int, typer.Option(help="another seed, another drawing")] = 0,
    face_embedding: Annotated[
        Path | None,
        typer.Option(
            help="ONNX face-recognition network (112 px RGB in, embedding out): people found alike stay together",
            exists=True,
        ),
    ] = None,
    same_face_above: Annotated[float, typer.Option(help="cosine above which two videos show one person")] = 0.5,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> None:
    """Draw training, validation and test sides without leaks, write split.parquet into every set, and report."""
    from trainer.manifest import CropSet
    from trainer.splits import By, make_split

    if by not in get_args(By):
        raise typer.BadParameter(f"{by!r} is none of {', '.join(get_args(By))}", param_hint="--by")
    sets = [CropSet.open(folder) for folder in folders]
    faces = _same_faces(sets, face_embedding, same_face_above) if face_embedding else []
    drawn = make_split(sets, by, validation, test, seed, faces)  # type: ignore[arg-type]  # checked by Policy
    for crops in sets:
        drawn.save(crops.folder)
    report = _report(drawn, sets)
    typer.echo(json.dumps(report, indent=1) if as_json else _words(report))


def _same_faces(sets: Sequence[CropSet], network: Path, above: float) -> list[tuple[str, str]]:
    from trainer.face_embedding import FaceEmbedding, same_faces, video_embeddings

    return same_faces(*video_embeddings(sets, FaceEmbedding(network)), above)


def _report(split: Split, sets: Sequence[CropSet]) -> dict[str, Any]:
    from dataclasses import asdict

    from trainer.splits import advice, count, largest_component, leaks

    name, share = largest_component(split)
    sides = count(split, sets)
    empty = [side for side in split.policy.asked if not sides[side].videos]
    return {
        "policy": asdict(split.policy),
        "sides": {side: asdict(counted) for side, counted in sides.items()},
        "largest_component": {"name": name, "share_of_videos": round(share, 4)},
        "leaks": [asdict(leak) for leak in leaks(split, sets)],
        "empty": empty,
        "advice": advice(split) if empty else "",
    }


def _words(report: dict[str, Any]) -> str:
    lines = [
        f"{side:<11} {c['components']:>6} components {c['videos']:>7} videos {c['crops']:>8} crops: {c['reals']} real, {c['fakes']} fake"
        for side, c in report["sides"].items()
    ]
    largest = report["largest_component"]
    lines.append(f"largest component: {largest['name']}, {largest['share_of_videos']:.1%} of the videos")
    lines += [f"EMPTY {side}: {report['advice']}" for side in report["empty"]]
    for leak in report["leaks"][:LEAKS_SHOWN]:
        sides = ", ".join(f"{len(videos)} in {side}" for side, videos in sorted(leak["videos"].items()))
        lines.append(f"LEAK {leak['kind']} {leak['name']}: {sides}")
    more = len(report["leaks"]) - LEAKS_SHOWN
    lines += [f"and {more} more; --json names them all"] if more > 0 else []
    lines.append(f"{len(report['leaks'])} leaks" if report["leaks"] else "no leak")
    return "\n".join(lines)


@app.command()
def redraw(
    folder: Folder,
    steps: Annotated[int, typer.Option(help="steps of each generator's training", min=1)] = 300,
    seed: Annotated[int, typer.Option(help="seed of the generators")] = 0,
) -> None:
    """Train small generators on the training side's reals and re-draw every real with each, for the kinds "redrawn" and "unseen"."""
    from trainer import resynth
    from trainer.manifest import CropSet
    from trainer.splits import Split

    crops = CropSet.open(folder)
    rows = Split.open(folder).rows(crops, "train")
    typer.echo(str(resynth.redraw(crops, rows, steps=steps, seed=seed)))


@app.command("make-fakes")
def make_fakes(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="folder of the new prepared set", file_okay=False)],
    side: Annotated[str, typer.Option(help="train, validation or test")] = "validation",
    kinds: Annotated[
        str,
        typer.Option(
            help="which fakes, with commas: self, resampled, donor, redrawn and unseen (need `trainer redraw`), pair"
        ),
    ] = "self,resampled,donor",
    per_crop: Annotated[int, typer.Option(help="fakes of each kind for every crop", min=1)] = 1,
    video_like: Annotated[
        bool, typer.Option(help="as small and as compressed as faces in a video that was shared twice")
    ] = False,
    seed: Annotated[int, typer.Option(help="another seed, other fakes")] = 1,
) -> None:
    """Make twins, real and fake, of one side of a prepared set: a set of its own to evaluate and calibrate on."""
    from trainer import augment, splits
    from trainer import make_fakes as stage
    from trainer.manifest import CropSet

    crops = CropSet.open(folder)
    rows = splits.Split.open(folder).rows(crops, splits.as_side(side))
    recipe_of = augment.video_like if video_like else augment.draw
    names = [kind.strip() for kind in kinds.split(",") if kind.strip()]
    made = stage.make_fakes(crops, rows, names, out, per_crop, recipe_of, seed, _tell)
    typer.echo(f"{len(made)} crops, half of them fakes, in {out}")


def _tell(done: int, whole: int) -> None:
    typer.echo(f"{done} of {whole} pairs", err=True)
