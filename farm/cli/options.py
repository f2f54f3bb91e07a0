"""Arguments and options that several commands share, and which farm they act on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from farm.farm import Farm

DEFAULT_HOME = Path(".farm")
"""Where an embedded farm lives if neither --home nor FARM_DATABASE_URL names one."""

Home = Annotated[
    Path | None,
    typer.Option(
        "--home", help="Folder of an embedded farm. Default: the farm that FARM_* names, else ./.farm", file_okay=False
    ),
]
ScanId = Annotated[int, typer.Argument(metavar="SCAN", help="Number of the scan, as `farm status` lists it.", min=1)]
PATHS_HELP = (
    "Video files, folders, patterns, s3://bucket/prefix, or a CSV manifest "
    "(columns path[,label,…]; paths relative to its folder; label FAKE or REAL)."
)


def _something_named(paths: list[str] | None) -> list[str] | None:
    """Refuse a command line on which no path leads anywhere; one bad path among good ones becomes a result that says so."""
    if paths and not any(path.startswith("s3://") or has_magic(path) or os.path.lexists(path) for path in paths):
        raise typer.BadParameter(f"there is no such file or folder: {', '.join(paths)}")
    return paths


Paths = Annotated[list[str], typer.Argument(metavar="PATHS…", help=PATHS_HELP, callback=_something_named)]
MaybePaths = Annotated[list[str] | None, typer.Argument(metavar="[PATHS…]", help=PATHS_HELP, callback=_something_named)]
DatasetName = Annotated[str | None, typer.Option("--dataset", help="Name of the data set these videos belong to.")]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine", help="onnx, openvino, vart or simulated. Default: FARM_ENGINE, else onnx; rescan: as it was."
    ),
]
ModelName = Annotated[
    str,
    typer.Option(
        "--model",
        help="name, name@version or a model card's path. Default: FARM_MODEL, else the promoted one, else the shipped one; "
        "rescan: as it was.",
    ),
]
Sampling = Annotated[
    str,
    typer.Option(
        "--sampling",
        help="keyframes, fps:X, every:N, uniform:N or all. Default: FARM_SAMPLING, else keyframes; rescan: as it was.",
    ),
]
Priority = Annotated[int, typer.Option("--priority", help="0 (first) to 9 (last).", min=0, max=9)]
AsJson = Annotated[bool, typer.Option("--json", help="End stdout with one line of JSON.")]


def home_of(home: Path | None) -> Path | None:
    """The embedded farm's folder, or None where FARM_* names a farm and --home does not."""
    from farm.settings import settings

    if home is None and settings().database_url:
        return None
    return home or DEFAULT_HOME


@contextmanager
def opened_farm(home: Path | None) -> Iterator[Farm]:
    """The farm a command acts on, its schema checked, closed afterwards. Raises BadInput where there is none yet."""
    from farm.db.session import check_schema
    from farm.embedded import embedded_settings
    from farm.errors import BadInput
    from farm.farm import Farm
    from farm.settings import settings

    folder = home_of(home)
    if folder is not None and not (folder / "farm.db").is_file():
        raise BadInput(
            f"there is no farm in {folder}: `farm scan PATHS --home {folder}` or `farm db upgrade --home {folder}` makes one, "
            "--home names another"
        )
    farm = Farm.open(settings() if folder is None else embedded_settings(folder))
    try:
        check_schema(farm.engine)
        yield farm
    finally:
        farm.close()
