"""What queue, SQL and storage cost: CPU-seconds of a scan by an embedded farm against the same frames, faces and scores in one process.

    python -m bench.farm_overhead [CLIPS] [--rounds 3]

`share` is that of a running farm: the CPU time of all its processes (Redis, dispatcher, split worker, infer worker, and the one that
submits and waits) from the submission to the scan's end, over the same work by the same code in one warm process. `share_with_start` is
that of a farm made, started, used once and stopped: interpreters, imports, migrations included, which a longer scan forgets. What both
ways need is in both: decoding, detection, tracks, crops, the network, the verdict. All is pinned to one processor, so that neither way
pays for the other processes of the machine more than the other; the ways take turns, and the least of the rounds counts, as noise only
adds (a busy machine moves `share` by some points). Each round's clips differ in a few bytes at their end, so that nothing is known to the
store. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

from bench.cpu_seconds import family_cpu_seconds, run_counted

CLIPS = Path(__file__).parents[2] / "shared" / "data" / "pairs"
FREE_ATOM = b"\x00\x00\x00\x10free"
"""An MP4 box without meaning; the 8 bytes after it are ours."""

Work = Callable[[list[Path]], int]


@contextmanager
def work_alone() -> Iterator[Work]:
    """The farm's own media code and engine, without a farm: one thread splits, another scores, batches pass in memory.

    Two threads, because the farm splits and scores side by side too, and on one processor the two take each other's cache.
    Yields clips -> crops scored.
    """
    from farm.contracts import CropBatch, ModelCard
    from farm.jobs.models import shipped_card
    from farm.media.faces import open_detector
    from farm.settings import settings
    from farm.split import Recipe, SplitSummary, split
    from farm.verdict import TrackScores, decide
    from workers.engines import open_engine

    chosen, path = settings(), shipped_card()
    card = ModelCard.load(path)
    engine = open_engine(chosen.engine, path.parent / card.weights, card, threads=chosen.engine_threads)
    recipe = Recipe(margin=card.crop_margin)
    detector = open_detector(recipe.detector, recipe.detector_side_px, recipe.detector_confidence, threads=1)

    def score(waiting: Queue[tuple[list[TrackScores], CropBatch] | None]) -> None:
        while (item := waiting.get()) is not None:
            parts, batch = item
            logits = engine.predict(batch.pixels).logits
            parts += [TrackScores(c.track, 1, float(v), float(v)) for c, v in zip(batch.crops, logits, strict=True)]

    def work(clips: list[Path]) -> int:
        waiting: Queue[tuple[list[TrackScores], CropBatch] | None] = Queue(4)
        scorer = threading.Thread(target=score, args=(waiting,))
        scorer.start()
        seen: list[tuple[SplitSummary, list[TrackScores]]] = []
        for clip in clips:
            run, parts = split(clip, recipe, detector), list[TrackScores]()
            for batch in run:
                waiting.put((parts, batch))
            seen.append((run.summary, parts))
        waiting.put(None)
        scorer.join()
        for summary, parts in seen:
            decide(parts, card, summary={"frames_read": summary.frames_read, "faces_found": summary.faces_found})
        return sum(summary.crops for summary, _ in seen)

    yield work
    engine.close()


@contextmanager
def work_of_the_farm() -> Iterator[Work]:
    """The same clips through an embedded farm in a new folder."""
    from farm.embedded import EmbeddedFarm
    from farm.jobs.recipe import recipe_of
    from farm.jobs.sources import expand
    from farm.jobs.submit import submit

    with tempfile.TemporaryDirectory() as home, EmbeddedFarm(Path(home)) as embedded:
        recipe = recipe_of(embedded.farm)
        yield lambda clips: embedded.wait(submit(embedded.farm, expand(clips), recipe=recipe)).crops_done


WAYS = {"farm": work_of_the_farm, "alone": work_alone}


def one_way(way: str, clips: list[Path], warm_up: list[Path]) -> None:
    """In a process of its own: print the crops and, after a warm-up, the CPU-seconds of this process and all it started."""
    with WAYS[way]() as work:
        if warm_up:
            work(warm_up)
        began, wall = family_cpu_seconds(), time.monotonic()
        crops = work(clips)
        spent = family_cpu_seconds() - began
        wall = time.monotonic() - wall
    print(json.dumps({"crops": crops, "cpu_seconds": round(spent, 3), "wall_seconds": round(wall, 2)}))


def compare(clips: list[Path], rounds: int, folder: Path) -> dict[str, float]:
    """Both ways in turns. Raises SystemExit where they did not do the same work."""
    warm: dict[str, list[float]] = {"farm": [], "alone": []}
    cold: dict[str, list[float]] = {"farm": [], "alone": []}
    crops = set()
    for number in range(rounds):
        fresh = _fresh(clips, folder / f"round-{number}", number)
        others = _fresh(clips, folder / f"warm-{number}", 1000 + number)
        for way in WAYS:
            command = [sys.executable, "-m", "bench.farm_overhead", "--way", way]
            told = json.loads(run_counted([*command, fresh, "--warm-up", others]).stdout.splitlines()[-1])
            whole = run_counted([*command, fresh])
            warm[way].append(told["cpu_seconds"])
            cold[way].append(whole.cpu_seconds)
            crops |= {told["crops"], json.loads(whole.stdout.splitlines()[-1])["crops"]}
            print(
                f"round {number}, {way}: running {told}; from start to stop {whole.cpu_seconds:.2f} CPU-s", flush=True
            )
    if len(crops) != 1:
        raise SystemExit(f"not the same work: crops {crops}")
    least = {"farm": min(warm["farm"]), "alone": min(warm["alone"])}
    whole = {"farm": min(cold["farm"]), "alone": min(cold["alone"])}
    return {
        "share": round((least["farm"] - least["alone"]) / least["farm"], 4),
        "farm_cpu_seconds": least["farm"],
        "work_cpu_seconds": least["alone"],
        "share_with_start": round((whole["farm"] - whole["alone"]) / whole["farm"], 4),
        "farm_with_start_cpu_seconds": round(whole["farm"], 2),
        "work_with_start_cpu_seconds": round(whole["alone"], 2),
        "videos": len(clips),
        "crops": crops.pop(),
    }


def _fresh(clips: list[Path], folder: Path, number: int) -> Path:
    """The clips with other bytes: an empty box at the end that says a number."""
    folder.mkdir(parents=True)
    for clip in clips:
        (folder / clip.name).write_bytes(clip.read_bytes() + FREE_ATOM + number.to_bytes(8, "big"))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="?", type=Path, default=CLIPS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=tuple(WAYS))
    parser.add_argument("--warm-up", type=Path)
    chosen = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory(prefix="farm-overhead-") as scratch:
        clips = _clips(chosen.clips, Path(scratch))
        if chosen.way:
            one_way(chosen.way, clips, _clips(chosen.warm_up, Path(scratch)) if chosen.warm_up else [])
        else:
            print(json.dumps(compare(clips, chosen.rounds, Path(scratch))))


def _clips(folder: Path, scratch: Path) -> list[Path]:
    """The MP4 files of the folder, or the project's own samples where it is not at hand."""
    if not folder.is_dir():
        from farm.samples import write_samples

        write_samples(folder := scratch / "samples")
    return sorted(path for path in folder.iterdir() if path.suffix == ".mp4")


if __name__ == "__main__":
    main()
