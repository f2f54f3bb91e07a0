"""`farm scan` against the seed's own way, on the same clips, weights and detector: CPU-seconds per video, and AUC over the videos.

    python -m bench.scan_vs_seed [CLIPS] [--card CARD.json] [--engine onnx]

CLIPS is a folder whose files are called `<pair>_real.mp4` and `<pair>_fake.mp4`. Both ways run as processes of their own, one after
the other, and everything they start is counted, start-up included. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.cpu_seconds import run_counted
from farm.contracts import ModelCard

CLIPS = Path(__file__).parents[2] / "shared" / "data" / "pairs"
CARD = Path(__file__).parents[1] / "workers" / "models" / "uynet-w16.json"
RESAMPLES = 10_000


@dataclass(frozen=True)
class Way:
    """What one way said of the clips, and what it cost."""

    #: file name -> score in [0, 1]; None where it found no face
    scores: dict[str, float | None]
    cpu_seconds: float
    #: file name -> faces scored
    faces: dict[str, int]


def by_the_seed(clips: list[Path], card: Path) -> Way:
    run = run_counted([sys.executable, "-m", "bench.seed_way", card, *clips])
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    return Way(
        {row["name"]: row["p_fake"] for row in rows}, run.cpu_seconds, {row["name"]: row["faces"] for row in rows}
    )


def by_the_farm(clips: list[Path], card: Path, engine: str) -> Way:
    """Scan in a new home, then ask for the results (not counted: the seed prints its own)."""
    farm = Path(sys.executable).with_name("farm")
    with tempfile.TemporaryDirectory() as home:
        run = run_counted([farm, "scan", *clips, "--home", home, "--engine", engine, "--model", card, "--json"])
        scan = json.loads(run.stdout.splitlines()[-1])["scan"]
        rows = json.loads(run_counted([farm, "results", str(scan), "--home", home, "--format", "json"]).stdout)
    return Way(
        {row["name"]: row["p_fake"] for row in rows}, run.cpu_seconds, {row["name"]: row["faces"] for row in rows}
    )


def kept(path: Path | None, key: str) -> Way | None:
    """A seed's run of an earlier call, for work on this benchmark only; None if it was of other weights or clips."""
    if path is None or not path.exists():
        return None
    stored = json.loads(path.read_text())
    return Way(stored["scores"], stored["cpu_seconds"], stored["faces"]) if stored["key"] == key else None


def paired_scores(way: Way, clips: list[Path]) -> NDArray[np.float64]:
    """(pairs, 2) scores of the real and the fake clip of each pair; a clip without a score counts as the least suspicious."""
    pairs = sorted({clip.stem.rpartition("_")[0] for clip in clips})
    return np.array([[way.scores.get(f"{pair}_{side}.mp4") or 0.0 for side in ("real", "fake")] for pair in pairs])


def auc(pairs: NDArray[np.float64]) -> float:
    """Share of (real, fake) combinations, of any pairs, in which the fake scores higher; ties count one half."""
    difference = pairs[None, :, 1] - pairs[:, None, 0]
    return float(((np.sign(difference) + 1) / 2).mean())


def difference_interval(farm: NDArray[np.float64], seed: NDArray[np.float64]) -> tuple[float, float]:
    """95 % percentile bootstrap interval of AUC(farm) - AUC(seed): the same pairs are drawn for both."""
    random = np.random.default_rng(0)
    draws = random.integers(0, len(farm), (RESAMPLES, len(farm)))
    low, high = np.quantile([auc(farm[draw]) - auc(seed[draw]) for draw in draws], [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    options = _options()
    clips = sorted(options.clips.glob("*_real.mp4")) + sorted(options.clips.glob("*_fake.mp4"))
    if not clips:
        raise SystemExit(
            f"no clips called *_real.mp4 and *_fake.mp4 in {options.clips}: give the folder of the pair clips as an argument"
        )
    key = hashlib.sha256(
        (ModelCard.load(options.card).sha256 + "".join(clip.name for clip in clips)).encode()
    ).hexdigest()
    seed = kept(options.keep_seed, key)
    if seed is None:
        seed = by_the_seed(clips, options.card)
        if options.keep_seed:
            values = {"key": key, "scores": seed.scores, "cpu_seconds": seed.cpu_seconds, "faces": seed.faces}
            options.keep_seed.write_text(json.dumps(values))
    farm = by_the_farm(clips, options.card, options.engine)
    report(farm, seed, clips)


def report(farm: Way, seed: Way, clips: list[Path]) -> None:
    """Print the table, then the line of JSON."""
    print(f"{'clip':24}{'faces, farm':>12}{'seed':>8}{'p_fake, farm':>14}{'seed':>8}")
    for clip in sorted(clips):
        name = clip.name
        scores = "".join(
            f"{'-' if s is None else format(s, '.3f'):>{w}}"
            for s, w in ((farm.scores.get(name), 14), (seed.scores[name], 8))
        )
        print(f"{name:24}{farm.faces.get(name, 0):12}{seed.faces[name]:8}{scores}")
    farm_pairs, seed_pairs = paired_scores(farm, clips), paired_scores(seed, clips)
    low, high = difference_interval(farm_pairs, seed_pairs)
    count = len(clips)
    print(f"CPU-seconds per video: farm {farm.cpu_seconds / count:.2f}, seed {seed.cpu_seconds / count:.2f}")
    print(
        json.dumps(
            {
                "cpu_ratio": round(seed.cpu_seconds / farm.cpu_seconds, 2),
                "auc_farm": round(auc(farm_pairs), 4),
                "auc_seed": round(auc(seed_pairs), 4),
                "auc_difference_low": round(low, 4),
                "auc_difference_high": round(high, 4),
                "cpu_seconds_farm": round(farm.cpu_seconds, 2),
                "cpu_seconds_seed": round(seed.cpu_seconds, 2),
                "videos": count,
            }
        )
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clips", type=Path, nargs="?", default=CLIPS, help="folder of the pair clips")
    parser.add_argument("--card", type=Path, default=CARD, help="model card of the weights that both ways use")
    parser.add_argument("--engine", default="onnx", help="the farm's engine; the seed's is always eager PyTorch")
    parser.add_argument(
        "--keep-seed", type=Path, help="file that keeps the seed's run between calls; for work on this benchmark"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
