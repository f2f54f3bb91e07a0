"""The verb `prepare`: a downloaded data set becomes face crops, masks and one manifest."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.cli.app import app

if TYPE_CHECKING:
    from trainer.prepare import Prepared, Progress
    from trainer.sources.listing import Listing

prepare = typer.Typer(
    help="Cut the faces of a downloaded data set, with masks where originals are known. Started again, it goes on where it ended.",
    no_args_is_help=True,
)
app.add_typer(prepare, name="prepare")

Root = Annotated[Path, typer.Argument(help="the data set's folder", exists=True, file_okay=False)]
Table = Annotated[Path, typer.Argument(help="the CSV file; its paths are relative to it", exists=True, dir_okay=False)]
Out = Annotated[Path, typer.Option(help="folder of the prepared set", file_okay=False)]
Frames = Annotated[int, typer.Option(help="frames looked at in each video, evenly spread", min=1, max=10_000)]
DetectorName = Annotated[str, typer.Option(help="face detector: centerface or haar")]
DetectorSide = Annotated[int, typer.Option(help="longer side in px of the picture that the detector sees")]
Confidence = Annotated[float, typer.Option(help="lowest confidence that counts as a face, in (0, 1)")]
Processes = Annotated[int | None, typer.Option(help="processes at once; one per core if left out", min=1)]
SAY_EVERY_SECONDS = 30.0


@prepare.command()
def dfdc(
    root: Root,
    out: Out,
    frames: Frames = 10,
    detector: DetectorName = "centerface",
    detector_side: DetectorSide = 320,
    confidence: Confidence = 0.5,
    processes: Processes = None,
) -> None:
    """The Deepfake Detection Challenge: dfdc_train_part_*/metadata.json, or one folder with metadata.json."""
    from trainer.sources.dfdc import read

    _prepare(read(root), out, frames, detector, detector_side, confidence, processes)


@prepare.command()
def ffpp(
    root: Root,
    out: Out,
    compression: Annotated[str, typer.Option(help="raw, c23 or c40")] = "c23",
    frames: Frames = 10,
    detector: DetectorName = "centerface",
    detector_side: DetectorSide = 320,
    confidence: Confidence = 0.5,
    processes: Processes = None,
) -> None:
    """FaceForensics++: original_sequences and manipulated_sequences, DeepFakeDetection too where it is there."""
    from trainer.sources.ffpp import read

    _prepare(read(root, compression), out, frames, detector, detector_side, confidence, processes)


@prepare.command()
def celebdf(
    root: Root,
    out: Out,
    part: Annotated[str, typer.Option(help="all, the official test list, or the rest")] = "all",
    frames: Frames = 10,
    detector: DetectorName = "centerface",
    detector_side: DetectorSide = 320,
    confidence: Confidence = 0.5,
    processes: Processes = None,
) -> None:
    """Celeb-DF v2: Celeb-real, YouTube-real and Celeb-synthesis."""
    from trainer.sources.celebdf import read

    _prepare(read(root, part), out, frames, detector, detector_side, confidence, processes)


@prepare.command("csv")
def csv_table(
    table: Table,
    out: Out,
    frames: Frames = 10,
    detector: DetectorName = "centerface",
    detector_side: DetectorSide = 320,
    confidence: Confidence = 0.5,
    processes: Processes = None,
) -> None:
    """Any data set in a CSV file: path (or file) and label, and where known original, group, method."""
    from trainer.sources.table import read

    _prepare(read(table), out, frames, detector, detector_side, confidence, processes)


@prepare.command()
def portraits(
    root: Root,
    out: Out,
    detector: DetectorName = "centerface",
    detector_side: DetectorSide = 320,
    confidence: Confidence = 0.5,
    processes: Processes = None,
) -> None:
    """A folder of pictures, one face each, all real; the group is the person."""
    from trainer.sources.pictures import read

    _prepare(read(root), out, 1, detector, detector_side, confidence, processes)


def _prepare(
    found: Listing,
    out: Path,
    frames: int,
    detector: str,
    detector_side: int,
    confidence: float,
    processes: int | None,
) -> None:
    from farm.media.faces import open_detector
    from trainer import contact_sheet
    from trainer.cutting import Cutting
    from trainer.prepare import prepare_set

    open_detector(detector, detector_side, confidence)  # an unknown name is told here, not by every process
    how = Cutting(frames, detector, detector_side, confidence)
    try:
        with _shown(len(found.sources)) as on_progress:
            done = prepare_set(found, out, how, processes or len(os.sched_getaffinity(0)), on_progress)
    except KeyboardInterrupt:
        typer.echo(f"stopped; the same command goes on with what is not in {out} yet", err=True)
        raise typer.Exit(130) from None
    _tell(done, contact_sheet.draw(done.crops))


def _tell(done: Prepared, sheet: Path) -> None:
    from rich.console import Console
    from rich.table import Table as Grid

    if done.remarks:
        grid = Grid("files", "", "reason", title=f"remarks, one by one in {done.crops.folder / 'skipped.json'}")
        for reason, kept, count in done.counts():
            grid.add_row(str(count), "kept" if kept else "left out", reason)
        Console(stderr=True).print(grid)
    crops = done.crops
    videos, fakes = len(set(crops.videos)), int(crops.fake.sum())
    typer.echo(
        f"{len(crops)} crops of {videos} files in {crops.folder}: {len(crops) - fakes} real, {fakes} fake; look at {sheet}"
    )


@contextmanager
def _shown(files: int) -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal; elsewhere a line now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        typer.echo(f"files to prepare: {files}", err=True)
        yield _line_by_line()
        return
    columns = (
        TextColumn("{task.fields[units]} videos with their fakes"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("prepare", total=None, units="")
        yield lambda p: bar.update(task, total=p.bytes, completed=p.bytes_done, units=f"{p.units_done} / {p.units}")


def _line_by_line() -> Callable[[Progress], None]:
    last = time.monotonic()

    def say(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= SAY_EVERY_SECONDS or progress.units_done == progress.units:
            last = time.monotonic()
            share = progress.bytes_done / max(1, progress.bytes)
            typer.echo(f"{progress.units_done} of {progress.units} units, {share:.0%} of the bytes", err=True)

    return say
