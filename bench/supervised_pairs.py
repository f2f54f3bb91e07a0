"""Supervised training on real and fake pairs: a test of the trainer's network and of splits, never a way to shipped weights.

    python -m bench.supervised_pairs --data DIR --start-from CARD [--head-only --repeats 20] [--images 600] [--out FILE]

DIR is a data set made by `trainer prepare`. Three ways to hold out, the same number of folds, networks and pictures each: whole groups of
people, whole pairs of videos drawn at random, single frames drawn at random. What the last two score above the first is leakage: the
network knows the person. `--start-from` are weights that saw none of DIR; `--head-only` leaves them as they are and fits a ridge
regression on the means of their features, which takes seconds. AUC over all held-out crops and, by video, over the mean
logits, and what a way scores above whole groups; intervals draw whole groups. A fold that stands in FILE is not trained again.
Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from farm.contracts import CROP_SIDE_PX
from trainer import augment
from trainer.dataset import to_input
from trainer.manifest import CropSet
from trainer.measure import auc, interval
from trainer.model import UYNet
from trainer.precision import native_bf16
from trainer.start import load

PAIRS_PER_STEP = 8
WINDOW_PX = 128
LEARNING_RATE = 1e-3
HEAD_DECAY = 1.0
"""Of the squared slopes, beside the weighted squared errors, whose weights sum to 2; features have a spread of 1."""
WAYS = ("group", "pair of videos", "frame")


def folds_of(crops: CropSet, rows: NDArray[np.intp], way: str, seed: int) -> NDArray[np.intp]:
    """(n,) number of the fold that holds out each fake of `rows`; as many folds as there are groups, whatever the way."""
    groups = np.unique(crops.column("group")[rows], return_inverse=True)[1]
    if way == "group":
        return groups
    units = np.unique(crops.videos[rows], return_inverse=True)[1] if way == "pair of videos" else np.arange(len(rows))
    folds = np.arange(units.max() + 1) % (groups.max() + 1)
    return np.random.default_rng(seed).permutation(folds)[units]


def train(crops: CropSet, fakes: NDArray[np.intp], options: Options, seed: int) -> UYNet:
    """A network trained on these fakes and their originals, drawn evenly over groups."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    groups = crops.column("group")[fakes]
    members = [fakes[groups == group] for group in np.unique(groups)]

    def draw(count: int) -> list[int]:
        return [int(rng.choice(members[rng.integers(len(members))])) for _ in range(count)]

    model = UYNet(options.width).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if options.start_from:
        load(model, options.start_from, _batch(crops, draw(16), rng, CROP_SIDE_PX)[0])
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.02)
    steps = options.images // (2 * PAIRS_PER_STEP)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, steps, pct_start=0.1)
    for _ in range(steps):
        images_now, masks = _batch(crops, draw(PAIRS_PER_STEP), rng, WINDOW_PX)
        with torch.autocast("cpu", torch.bfloat16, enabled=native_bf16("cpu")):
            out = model.forward_quarter(images_now)
        loss = _loss(out.class_logit[:, 0].float(), out.mask_logit.float(), masks)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return model


def _batch(crops: CropSet, fakes: list[int], rng: np.random.Generator, side: int) -> tuple[Tensor, Tensor]:
    reals, twins, masks = [], [], []
    top, left = rng.integers(CROP_SIDE_PX + 1 - side, size=2)
    window = slice(top, top + side), slice(left, left + side)
    for row in fakes:
        recipe, where = augment.draw(rng), crops.mask(row)
        assert where is not None
        reals.append(augment.apply(recipe, crops.crop(int(crops.original_rows[row])))[window])
        twins.append(augment.apply(recipe, crops.crop(row))[window])
        masks.append(augment.move(recipe, where.astype(np.float32))[window])
    truth = torch.from_numpy(np.stack([np.zeros_like(m) for m in masks] + masks))[:, None]
    return _input(np.stack(reals + twins)), functional.avg_pool2d(truth, 4)


def _loss(scores: Tensor, where: Tensor, masks: Tensor) -> Tensor:
    half = len(scores) // 2
    labels = torch.cat([torch.full((half,), 0.03), torch.full((half,), 0.97)])
    ranking = functional.softplus(scores[:half] - scores[half:]).mean()
    classes = functional.binary_cross_entropy_with_logits(scores, labels)
    return classes + 0.5 * ranking + functional.binary_cross_entropy_with_logits(where, masks)


def _input(crops: NDArray[np.uint8]) -> Tensor:
    return to_input(torch.from_numpy(crops).permute(0, 3, 1, 2)).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def logits_of(model: UYNet, crops: CropSet, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """(n,) class logits of the crops as they are."""
    model.eval()
    batches = [_input(np.stack([crops.crop(int(row)) for row in rows[i : i + 16]])) for i in range(0, len(rows), 16)]
    return np.concatenate([model.forward_quarter(batch).class_logit[:, 0].double().numpy() for batch in batches])


def score(crops: CropSet, fakes: NDArray[np.intp], way: str, options: Options, seed: int) -> NDArray[np.float64]:
    """(2, n) logits of every real and of its fake, each by the network that was held away from it.

    Logits of different networks are not on one scale: each fold's are divided by their spread about their median.
    """
    folds, logits = folds_of(crops, fakes, way, seed), np.empty((2, len(fakes)))
    done = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    for fold in np.unique(folds):
        held, key = np.flatnonzero(folds == fold), f"{way} {seed} {fold} of {options.images} {options.width}"
        if key not in done:
            model = train(crops, fakes[folds != fold], options, seed)
            both = crops.original_rows[fakes[held]], fakes[held]
            done[key] = [logits_of(model, crops, rows).tolist() for rows in both]
            if options.out:
                options.out.write_text(json.dumps(done))
        found = np.array(done[key])
        logits[:, held] = _on_one_scale(found)
        print(f"  fold {fold}: {len(held)} held out, AUC {auc(found[0], found[1]):.3f}", flush=True)
    return logits


def _on_one_scale(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((logits - np.median(logits)) / (logits.std() + 1e-9))


@torch.no_grad()
def features_of(options: Options, crops: CropSet, fakes: NDArray[np.intp]) -> NDArray[np.float64]:
    """(2, n, 31 W) of every real and its fake: the means over the crop of all levels' features of the weights to start from."""
    model = UYNet(options.width)
    both = [crops.original_rows[fakes], fakes]
    every = [_input(np.stack([crops.crop(int(row)) for row in rows])) for rows in both]
    if options.start_from:
        load(model, options.start_from, every[0][:16])
    model.eval()
    means = [
        torch.cat([torch.cat([f.mean((2, 3)) for f in model.encode(part)], dim=1) for part in images.split(16)])
        for images in every
    ]
    return np.stack([mean.double().numpy() for mean in means])


def score_head(
    features: NDArray[np.float64], crops: CropSet, fakes: NDArray[np.intp], way: str, seed: int
) -> NDArray[np.float64]:
    """As `score`, of a ridge regression, all groups with one weight, on features alone."""
    folds, logits = folds_of(crops, fakes, way, seed), np.empty(features.shape[:2])
    groups = np.unique(crops.column("group")[fakes], return_inverse=True)[1]
    for fold in np.unique(folds):
        held, known = folds == fold, features[:, folds != fold]
        centre, spread = known.mean((0, 1)), known.std((0, 1)) + 1e-6
        share = 1 / np.bincount(groups)[groups[folds != fold]]
        slope = _regression((known - centre) / spread, share / share.sum())
        logits[:, held] = _on_one_scale((features[:, held] - centre) / spread @ slope)
    return logits


def _regression(known: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slopes of the ridge regression of -1 for reals and 1 for fakes on (2, n, F) features, reals first, `share` (n,) their weights."""
    weight = np.sqrt(np.tile(share, 2))
    rows = known.reshape(-1, known.shape[2]) * weight[:, None]
    target = np.repeat([-1.0, 1.0], len(share)) * weight
    # Fewer rows than features: solved by rows.
    return np.asarray(rows.T @ np.linalg.solve(rows @ rows.T + HEAD_DECAY * np.eye(len(rows)), target))


Figure = Callable[[NDArray[np.intp]], float]


def figures_of(logits: NDArray[np.float64], videos: NDArray[np.str_]) -> dict[str, Figure]:
    """AUC by frame and by video of some rows."""

    def by_video(rows: NDArray[np.intp]) -> float:
        means = np.array([logits[:, rows[videos[rows] == video]].mean(axis=1) for video in np.unique(videos[rows])])
        return auc(means[:, 0], means[:, 1])

    return {"frame_auc": lambda rows: auc(logits[0, rows], logits[1, rows]), "video_auc": by_video}


def told(figure: Figure, groups: NDArray[np.str_]) -> list[float]:
    """A figure of all rows and its 95 % interval over groups."""
    return [round(x, 3) for x in (figure(np.arange(len(groups))), *interval(figure, groups.tolist(), rounds=300))]


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    crops = CropSet.open(options.data)
    fakes = np.flatnonzero(crops.original_rows >= 0)
    fakes = fakes[[crops.mask(int(row)) is not None for row in fakes]]
    groups, videos = crops.column("group")[fakes].astype(str), crops.videos[fakes].astype(str)
    report: dict[str, object] = {"fakes": len(fakes), "groups": len(np.unique(groups)), "images": options.images}
    found: dict[str, dict[str, Figure]] = {}
    features = features_of(options, crops, fakes) if options.head_only else None
    for way in options.ways:
        print(f"held out by {way}", flush=True)
        runs = [
            score(crops, fakes, way, options, seed)
            if features is None
            else score_head(features, crops, fakes, way, seed)
            for seed in range(options.repeats)
        ]
        found[way] = figures_of(np.mean(runs, axis=0), videos)
        report[way] = {name: told(figure, groups) for name, figure in found[way].items()}
    for way in [way for way in found if way != "group" and "group" in found]:
        report[f"{way} above group"] = {name: told(_above(found, way, name), groups) for name in found[way]}
    print(json.dumps(report))


def _above(found: dict[str, dict[str, Figure]], way: str, name: str) -> Figure:
    return lambda rows: found[way][name](rows) - found["group"][name](rows)


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for."""

    data: Path
    width: int
    images: int
    repeats: int
    threads: int
    ways: list[str]
    start_from: Path | None
    head_only: bool
    #: the logits of finished folds
    out: Path | None


def _options() -> Options:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--start-from", type=Path)
    parser.add_argument("--head-only", action="store_true")
    parser.add_argument("--out", type=Path)
    return Options(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
