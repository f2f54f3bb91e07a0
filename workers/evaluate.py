"""The seed's evaluation: a folder of labelled face crops through one engine in this process, without a farm.

    python -m workers.evaluate --images DIR --labels metadata.json [--engine NAME] [--model CARD.json] [-t N] [--out DIR]

Pictures are read and scored block by block, so that a folder of any size fits memory; both are timed apart. Letters: N pictures, S side.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from farm.contracts import CROP_SIDE_PX, EngineSpec, ModelCard, Predictions
from farm.errors import BadInput, FarmError
from farm.jobs.models import shipped_card
from farm.settings import settings
from workers.engines import open_engine
from workers.engines.base import Engine
from workers.labelled_pictures import LabelledFolder, LabelledPicture, labelled_folder, read_crops

BLOCK_CROPS = 512
"""Pictures in memory at once: 77 MB."""
CALL_CROPS = 64
"""Crops per call of the engine, as a farm's batches have them."""
FAKE_FROM = 0.5
"""The seed's threshold: FAKE is said from this uncalibrated p_fake on."""
CLASS_FILE, MASK_FILE, TABLE_FILE = "class.npy", "mask.npy", "crops.csv"

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How an engine did on a folder of labelled crops."""

    right: int
    wrong: int
    #: right / (right + wrong)
    accuracy: float
    #: crops per second while the engine scores pictures that are in memory, as the seed counted
    fps: float
    #: the same with reading the pictures and writing the outputs
    fps_with_loading: float
    #: pictures of another size than S x S
    resized: int
    #: labelled pictures that are none: NaN in class.npy, an empty mask, neither right nor wrong
    unreadable: int
    #: pictures without a label, left out
    unlabelled: int
    #: labels without a picture
    unused_labels: int
    engine: str
    device: str
    precision: str
    #: callers at once
    threads: int
    #: name@version
    model: str
    #: the folder with both outputs
    out: str


def evaluate(found: LabelledFolder, engine: Engine, threads: int, out: Path) -> dict[str, Any]:
    """Score every labelled picture with so many callers at once; counts and seconds. Writes the three files into `out`.

    class.npy: (N,) float32 p_fake, uncalibrated; mask.npy: (N, S, S) bool, True = manipulated; crops.csv: which row is which picture.
    Raises what the engine raises, and BadInput where no picture at all can be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    total, shape = len(found.pictures), (len(found.pictures), CROP_SIDE_PX, CROP_SIDE_PX)
    p_fake = np.full(total, np.nan, np.float32)
    masks = np.lib.format.open_memmap(out / MASK_FILE, "w+", np.bool_, shape)
    resized, scoring, began = 0, 0.0, time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for rows, crops, readable, changed in _blocks(found.pictures, pool, threads):
            started = time.perf_counter()
            scored = _scored(engine, crops[readable], pool, threads)
            scoring += time.perf_counter() - started
            resized += changed
            at = rows.start + np.flatnonzero(readable)
            for answer in scored:
                mine, at = at[: len(answer.p_fake)], at[len(answer.p_fake) :]
                p_fake[mine], masks[mine] = answer.p_fake, answer.masks
    masks.flush()
    np.save(out / CLASS_FILE, p_fake)
    seconds = time.perf_counter() - began
    _write_table(out / TABLE_FILE, found.pictures, p_fake)
    read = ~np.isnan(p_fake)
    if not read.any():
        raise BadInput(f"none of the {total} labelled pictures can be read as one, such as {found.pictures[0].path}")
    fake = np.array([picture.fake for picture in found.pictures])
    right = int(((p_fake >= FAKE_FROM) == fake)[read].sum())
    crops_read = int(read.sum())
    return {
        "right": right,
        "wrong": crops_read - right,
        "accuracy": right / crops_read,
        "fps": crops_read / scoring,
        "fps_with_loading": crops_read / seconds,
        "resized": resized,
        "unreadable": total - crops_read,
    }


Block = tuple[slice, NDArray[np.uint8], NDArray[np.bool_], int]


def _blocks(pictures: Sequence[LabelledPicture], pool: ThreadPoolExecutor, threads: int) -> Iterator[Block]:
    """Rows, crops, which of them were readable, and how many were resized; read by all threads."""
    for start in range(0, len(pictures), BLOCK_CROPS):
        block = pictures[start : start + BLOCK_CROPS]
        parts = list(pool.map(read_crops, _shares(block, threads)))
        crops = np.concatenate([part[0] for part in parts])
        readable = np.concatenate([part[1] for part in parts])
        yield slice(start, start + len(block)), crops, readable, sum(part[2] for part in parts)


def _scored(engine: Engine, crops: NDArray[np.uint8], pool: ThreadPoolExecutor, threads: int) -> list[Predictions]:
    """What the engine says, in order, asked by all threads at once."""
    if not len(crops):
        return []
    # few crops are dealt to all callers, in whole batches of the engine's own
    batch = engine.spec.batch
    fair = -(-len(crops) // threads)
    size = max(batch, min(CALL_CROPS, -(-fair // batch) * batch))
    return list(pool.map(engine.predict, [crops[start : start + size] for start in range(0, len(crops), size)]))


def _shares(items: Sequence[Item], count: int) -> list[Sequence[Item]]:
    """The items in at most so many runs of about one length."""
    size = -(-len(items) // count)
    return [items[start : start + size] for start in range(0, len(items), size)]


def _write_table(path: Path, pictures: Sequence[LabelledPicture], p_fake: NDArray[np.float32]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file)
        table.writerow(("row", "name", "label", "p_fake", "right"))
        for row, (picture, p) in enumerate(zip(pictures, p_fake.tolist(), strict=True)):
            label = "FAKE" if picture.fake else "REAL"
            # NaN, which is not itself: never scored
            known = (p, int((p >= FAKE_FROM) == picture.fake)) if p == p else ("", "")
            table.writerow((row, picture.name, label, *known))


def run(images: Path, labels: Path, engine: str, model: str, card: str, threads: int, out: Path) -> Evaluation:
    """Open the engine, evaluate, close it. Raises FarmError."""
    if threads < 1:
        raise BadInput(f"-t is {threads}, expected 1 or more")
    found = labelled_folder(images, labels)
    chosen = settings()
    card_path = Path(model or chosen.model or shipped_card())
    model_card = ModelCard.load(card_path)
    opened = open_engine(
        engine or chosen.engine,
        card_path.with_name(model_card.weights),
        model_card,
        threads=chosen.engine_threads,
        device=card or chosen.card or None,
        rate=chosen.simulated_crops_per_second,
    )
    with closing(opened):
        counted = evaluate(found, opened, threads, out)
    return _evaluation(counted, found, opened.spec, threads, model_card, out)


def _evaluation(
    counted: dict[str, Any], found: LabelledFolder, spec: EngineSpec, threads: int, card: ModelCard, out: Path
) -> Evaluation:
    return Evaluation(
        **counted,
        unlabelled=len(found.unlabelled),
        unused_labels=found.unused_labels,
        engine=spec.name,
        device=spec.device,
        precision=spec.precision,
        threads=threads,
        model=f"{card.name}@{card.version}",
        out=str(out),
    )


def told(done: Evaluation) -> str:
    """The evaluation in words."""
    crops = done.right + done.wrong
    callers = f"{done.threads} caller{'s' if done.threads > 1 else ''}"
    by = f"{done.engine} on {done.device}, {done.precision}, {callers}, {done.model}"
    lines = [
        f"right {done.right}, wrong {done.wrong} of {crops} crops; accuracy {done.accuracy:.4f}",
        f"{done.fps:.1f} crops/s scoring, {done.fps_with_loading:.1f} with reading and writing ({by})",
    ]
    notes: list[tuple[int, str]] = [
        (done.resized, f"of another size than {CROP_SIDE_PX} x {CROP_SIDE_PX}, resized"),
        (done.unreadable, "unreadable, left out of the counts"),
        (done.unlabelled, "without a label, left out"),
        (done.unused_labels, "labels without a picture"),
    ]
    lines += [f"note: {count} {what}" for count, what in notes if count]
    return "\n".join([*lines, f"{CLASS_FILE}, {MASK_FILE} and {TABLE_FILE} in {done.out}", ""])


def main(argv: list[str] | None = None) -> int:
    """The command; exit codes are those of `farm`."""
    parser = argparse.ArgumentParser(prog="farm evaluate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--engine", default="")
    parser.add_argument("--model", default="")
    parser.add_argument("--card", default="")
    parser.add_argument("-t", "--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("evaluation"))
    parser.add_argument("--json", action="store_true")
    chosen = vars(parser.parse_args(argv))
    as_json = chosen.pop("json")
    return _ended(lambda: sys.stdout.write(_shown(run(**chosen), as_json=as_json)))


def _shown(done: Evaluation, *, as_json: bool) -> str:
    return told(done) + (json.dumps(asdict(done)) + "\n" if as_json else "")


def _ended(work: Callable[[], object]) -> int:
    try:
        work()
    except FarmError as error:
        sys.stderr.write(f"farm: {error}\n")
        return 1
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        sys.stderr.write(f"farm: {error.strerror or error}{where}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
