"""What queue, SQL and storage cost: CPU-seconds of a whole embedded farm's scan against the same frames, faces and scores in one process.

    python -m bench.farm_overhead [CLIPS] [--rounds 3]

Both ways run as processes of their own, in turns, and everything they start is counted, from the interpreter's first instruction to the
last process' end: so the share holds Redis, Celery, SQLAlchemy, SQLite, the object store, the dispatcher, starting the farm and stopping
it. What both need is in both: decoding, detection, tracks, crops, the network, the verdict. The least of the rounds counts, as noise only
adds. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from bench.cpu_seconds import run_counted

CLIPS = Path(__file__).parents[2] / "shared" / "data" / "pairs"


def work_alone(clips: list[Path]) -> None:
    """The farm's own media code and engine, without a farm: no queue, no SQL, no objects."""
    from farm.contracts import ModelCard
    from farm.jobs.models import shipped_card
    from farm.media.faces import open_detector
    from farm.settings import settings
    from farm.split import Recipe, split
    from farm.verdict import TrackScores, decide
    from workers.engines import open_engine

    chosen, path = settings(), shipped_card()
    card = ModelCard.load(path)
    engine = open_engine(chosen.engine, path.parent / card.weights, card, threads=chosen.engine_threads)
    recipe = Recipe(margin=card.crop_margin)
    detector = open_detector(recipe.detector, recipe.detector_side_px, recipe.detector_confidence, threads=1)
    crops = 0
    for clip in clips:
        run, parts = split(clip, recipe, detector), []
        for batch in run:
            logits = engine.predict(batch.pixels).logits
            parts += [TrackScores(c.track, 1, float(v), float(v)) for c, v in zip(batch.crops, logits, strict=True)]
        summary = run.summary
        decide(parts, card, summary={"frames_read": summary.frames_read, "faces_found": summary.faces_found})
        crops += summary.crops
    engine.close()
    print(json.dumps({"crops": crops, "videos": len(clips)}))


def work_of_the_farm(clips: list[Path]) -> None:
    """The same clips through an embedded farm in a new folder."""
    from farm.embedded import EmbeddedFarm
    from farm.jobs.recipe import recipe_of
    from farm.jobs.sources import expand
    from farm.jobs.submit import submit

    with tempfile.TemporaryDirectory() as home, EmbeddedFarm(Path(home)) as farm:
        scan_id = submit(farm.farm, expand(clips), recipe=recipe_of(farm.farm))
        ended = farm.wait(scan_id)
    print(json.dumps({"crops": ended.crops_done, "videos": ended.videos_done}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="?", type=Path, default=CLIPS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=("farm", "alone"))
    chosen = parser.parse_args()
    folder = chosen.clips if chosen.clips.is_dir() else _samples()
    clips = sorted(path for path in folder.iterdir() if path.suffix == ".mp4")
    if chosen.way:
        (work_of_the_farm if chosen.way == "farm" else work_alone)(clips)
        return
    print(json.dumps(compare(folder, chosen.rounds)))


def compare(folder: Path, rounds: int) -> dict[str, float]:
    """Both ways in turns. Raises SystemExit where they did not do the same work."""
    seconds: dict[str, list[float]] = {"farm": [], "alone": []}
    told: dict[str, dict[str, int]] = {}
    for number in range(rounds):
        for way in seconds:
            run = run_counted([sys.executable, "-m", "bench.farm_overhead", folder, "--way", way])
            told[way] = json.loads(run.stdout.splitlines()[-1])
            seconds[way].append(run.cpu_seconds)
            print(f"round {number}: {way} took {run.cpu_seconds:.2f} CPU-s for {told[way]}", flush=True)
    if told["farm"] != told["alone"]:
        raise SystemExit(f"not the same work: {told}")
    farm, alone = (min(seconds[way]) for way in ("farm", "alone"))
    return {
        "share": round((farm - alone) / farm, 4),
        "farm_cpu_seconds": round(farm, 2),
        "work_cpu_seconds": round(alone, 2),
        "videos": told["farm"]["videos"],
        "crops": told["farm"]["crops"],
    }


def _samples() -> Path:
    """The project's own sample clips, where the shared ones are not at hand."""
    from farm.samples import write_samples

    folder = Path(tempfile.mkdtemp(prefix="farm-samples-"))
    write_samples(folder)
    return folder


if __name__ == "__main__":
    main()
