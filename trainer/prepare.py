"""A listed data set becomes a prepared one: units of work made, done in all cores, gathered. Knows no layout and no pixel.

DIR/prepare.json      what decides the pixels; a second start with other values is refused
DIR/units/NAME.*      a finished unit's rows and remarks; a second start goes on with those that are not finished
DIR/skipped.json      every remark: what was left out, or kept with something missing, and why
DIR/manifest.parquet  see `trainer.manifest`; written last
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from farm.errors import BadInput, StorageAway
from trainer.cutting import UNITS, Cutting, Unit, cut_unit
from trainer.manifest import CROP_MARGIN, MANIFEST, SCHEMA, CropSet, write_manifest
from trainer.masks import AVERAGE_PX, CHANGED_ABOVE, SMALLEST_AREA
from trainer.portraits import join_twins
from trainer.processes import Failed, each
from trainer.sources.listing import FAKE, Listing, Remark, Source

SETTINGS, SKIPPED = "prepare.json", "skipped.json"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work is."""

    units_done: int
    units: int
    #: of the source files
    bytes_done: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared set and what was odd about its sources."""

    crops: CropSet
    remarks: tuple[Remark, ...]

    def counts(self) -> list[tuple[str, bool, int]]:
        """(reason, kept, number of files), the most frequent first."""
        counted = Counter((remark.reason, remark.kept) for remark in self.remarks)
        return [(reason, kept, count) for (reason, kept), count in counted.most_common()]


def prepare_set(
    found: Listing,
    out: Path,
    how: Cutting,
    processes: int,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Prepared:
    """Cut every face of a listing into `out`, or go on where an earlier start ended.

    Raises BadInput where `out` was prepared with other settings or no crop came of the whole listing, StorageAway where `out` cannot
    be written.
    """
    try:
        _keep_settings(out, found.layout, how)
        units = _units(found)
        todo = [unit for unit in units if not _finished(out, unit).exists()]
        if todo:
            (out / MANIFEST).unlink(missing_ok=True)
        failures = _work(partial(cut_unit, found.root, out, how), todo, units, processes, on_progress)
        return _gather(found, out, units, failures)
    except OSError as error:
        raise StorageAway(
            f"{out} cannot be written ({error.strerror or error}); make room, or name another folder, and "
            "give the same command again, it goes on from here"
        ) from error


def _work(
    work: Callable[[Unit], None],
    todo: list[Unit],
    units: list[Unit],
    processes: int,
    on_progress: Callable[[Progress], None],
) -> list[Remark]:
    """Do the units, the largest first, so that no process is left alone with one at the end; answers what failed."""
    failures: list[Remark] = []
    total = sum(unit.size_bytes for unit in units)
    done, done_bytes = len(units) - len(todo), total - sum(unit.size_bytes for unit in todo)
    on_progress(Progress(done, len(units), done_bytes, total))
    for unit, outcome in each(work, sorted(todo, key=lambda unit: -unit.size_bytes), processes):
        if isinstance(outcome, Failed):
            failures += [Remark(source.video, outcome.reason, outcome.detail) for source in unit.sources]
        done, done_bytes = done + 1, done_bytes + unit.size_bytes
        on_progress(Progress(done, len(units), done_bytes, total))
    return failures


def _keep_settings(out: Path, layout: str, how: Cutting) -> None:
    masks = {"masks_changed_above": CHANGED_ABOVE, "masks_average_px": AVERAGE_PX, "masks_smallest_area": SMALLEST_AREA}
    wanted = {"layout": layout, "margin": CROP_MARGIN, **asdict(how), **masks}
    file = out / SETTINGS
    if file.exists():
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BadInput(f"{file} is damaged ({error}); prepare into an empty folder") from error
        if kept != wanted:
            names = [name for name in wanted if not isinstance(kept, dict) or kept.get(name) != wanted[name]]
            raise BadInput(
                f"{out} was prepared with other settings ({', '.join(names)}; see {SETTINGS}); "
                "use the same ones, or another folder"
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    if foreign := sorted(path.name for path in out.iterdir() if path.name != file.with_suffix(".part").name):
        raise BadInput(f"{out} holds something else ({foreign[0]}): name a folder that is empty or not there yet")
    _write(file, wanted)


def _units(found: Listing) -> list[Unit]:
    fakes: dict[str, list[Source]] = {s.video: [] for s in found.sources if s.label != FAKE}
    alone = []
    for source in found.sources:
        if source.label == FAKE:
            fakes[source.original].append(source) if source.original in fakes else alone.append(source)
    groups = [(source, *fakes[source.video]) for source in found.sources if source.label != FAKE]
    return [_unit(found, group) for group in (*groups, *((source,) for source in alone))]


def _unit(found: Listing, sources: tuple[Source, ...]) -> Unit:
    sizes = [(found.root / source.video).stat().st_size for source in sources]
    digest = hashlib.sha256(json.dumps([[asdict(s) for s in sources], sizes]).encode()).hexdigest()
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", Path(sources[0].video).stem)[:40]
    return Unit(f"{stem}-{digest[:16]}", sources, sum(sizes), found.holds_pictures)


def _finished(out: Path, unit: Unit) -> Path:
    return out / UNITS / f"{unit.name}.json"


def _gather(found: Listing, out: Path, units: list[Unit], failures: Iterable[Remark]) -> Prepared:
    """Put the finished units' rows and remarks together, in the order of the listing."""
    remarks = [*found.remarks, *failures]
    tables = []
    for unit in units:
        file = _finished(out, unit)
        if file.exists():
            remarks += [Remark(**remark) for remark in json.loads(file.read_text(encoding="utf-8"))]
            tables.append(pq.read_table(file.with_suffix(".parquet"), partitioning=None))
    _write(out / SKIPPED, [asdict(remark) for remark in remarks])
    rows = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    if not rows.num_rows:
        raise BadInput(f"not one face came of the {len(found.sources)} files of {found.root}; see {out / SKIPPED}")
    if found.holds_pictures:
        rows = _one_group_per_photograph(out, rows)
    write_manifest(out, rows)
    return Prepared(CropSet.open(out), tuple(remarks))


def _one_group_per_photograph(out: Path, rows: pa.Table) -> pa.Table:
    crops = CropSet(out, rows)
    joined = join_twins(list(crops.column("group")), np.stack([crops.crop(row) for row in range(len(crops))]))
    at = rows.schema.get_field_index("group")
    return rows.set_column(at, SCHEMA.field("group"), pa.array(joined, pa.string()))


def _write(file: Path, value: Any) -> None:
    part = file.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1), encoding="utf-8")
    part.replace(file)
