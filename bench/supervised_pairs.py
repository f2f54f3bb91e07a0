"""Supervised training on real and fake pairs: a test of the trainer's network and of splits, never a way to shipped weights.

    python -m bench.supervised_pairs --data DIR [--images 5000] [--repeats 1]

DIR is a data set made by `trainer prepare`. Three ways to hold out, the same number of folds, networks and pictures each: whole groups of
people, whole pairs of videos drawn at random, single frames drawn at random. What the last two score above the first is leakage: the
network knows the person. AUC over all held-out crops and, by video, over the mean logits; intervals draw whole groups.
Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trainer import augment
from trainer.manifest import CropSet
from trainer.measure import auc, interval
from trainer.model import UYNet

PAIRS_PER_STEP = 16
WINDOW_PX = 160
WAYS = ("group", "pair of videos", "frame")


def folds_of(crops: CropSet, rows: NDArray[np.intp], way: str, seed: int) -> NDArray[np.intp]:
    """(n,) number of the fold that holds out each fake of `rows`; as many folds as there are groups, whatever the way."""
    groups = np.unique(crops.column("group")[rows], return_inverse=True)[1]
    if way == "group":
        return groups
    units = np.unique(crops.videos[rows], return_inverse=True)[1] if way == "pair of videos" else np.arange(len(rows))
    folds = np.arange(units.max() + 1) % (groups.max() + 1)
    return np.random.default_rng(seed).permutation(folds)[units]


def train(crops: CropSet, fakes: NDArray[np.intp], width: int, images: int, seed: int) -> UYNet:
    """A network from scratch on these fakes and their originals, drawn evenly over groups."""
    torch.manual_seed(seed)
    model = UYNet(width).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    steps = images // (2 * PAIRS_PER_STEP)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, steps, pct_start=0.1)
    rng = np.random.default_rng(seed)
    groups = crops.column("group")[fakes]
    members = [fakes[groups == group] for group in np.unique(groups)]
    for _ in range(steps):
        drawn = [int(rng.choice(members[rng.integers(len(members))])) for _ in range(PAIRS_PER_STEP)]
        images_now, masks = _batch(crops, drawn, rng)
        with torch.autocast("cpu", torch.bfloat16):
            out = model.forward_quarter(images_now)
        loss = _loss(out.class_logit[:, 0].float(), out.mask_logit.float(), masks)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return model


def _batch(crops: CropSet, fakes: list[int], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    reals, twins, masks = [], [], []
    top, left = rng.integers(225 - WINDOW_PX, size=2)
    window = slice(top, top + WINDOW_PX), slice(left, left + WINDOW_PX)
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
    from trainer.dataset import to_input

    return to_input(torch.from_numpy(crops).permute(0, 3, 1, 2)).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def logits_of(model: UYNet, crops: CropSet, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """(n,) class logits of the crops as they are."""
    model.eval()
    batches = [_input(np.stack([crops.crop(int(row)) for row in rows[i : i + 16]])) for i in range(0, len(rows), 16)]
    return np.concatenate([model.forward_quarter(batch).class_logit[:, 0].double().numpy() for batch in batches])


def score(
    crops: CropSet, fakes: NDArray[np.intp], folds: NDArray[np.intp], width: int, images: int, seed: int
) -> NDArray[np.float64]:
    """(2, n) logits of every real and of its fake, each by the network that was held away from it.

    Logits of different networks are not on one scale: each fold's are divided by their spread about their median.
    """
    logits = np.empty((2, len(fakes)))
    for fold in np.unique(folds):
        model = train(crops, fakes[folds != fold], width, images, seed)
        held = np.flatnonzero(folds == fold)
        found = np.stack([logits_of(model, crops, rows) for rows in (crops.original_rows[fakes[held]], fakes[held])])
        logits[:, held] = (found - np.median(found)) / (found.std() + 1e-9)
        print(f"  fold {fold}: {len(held)} held out, AUC {auc(found[0], found[1]):.3f}", flush=True)
    return logits


def figures(logits: NDArray[np.float64], groups: NDArray[np.str_], videos: NDArray[np.str_]) -> dict[str, object]:
    """AUC by frame and by video, with 95 % intervals over groups."""

    def by_video(rows: NDArray[np.intp]) -> float:
        means = np.array([logits[:, rows[videos[rows] == video]].mean(axis=1) for video in np.unique(videos[rows])])
        return auc(means[:, 0], means[:, 1])

    def by_frame(rows: NDArray[np.intp]) -> float:
        return auc(logits[0, rows], logits[1, rows])

    found: dict[str, object] = {}
    for name, figure in (("frame_auc", by_frame), ("video_auc", by_video)):
        found[name] = round(figure(np.arange(logits.shape[1])), 3)
        found[f"{name}_95"] = [round(x, 3) for x in interval(figure, groups.tolist(), rounds=300)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    crops = CropSet.open(options.data)
    fakes = np.flatnonzero(crops.original_rows >= 0)
    groups, videos = crops.column("group")[fakes].astype(str), crops.videos[fakes].astype(str)
    told: dict[str, object] = {"fakes": len(fakes), "groups": len(np.unique(groups)), "images": options.images}
    for way in options.ways:
        print(f"held out by {way}", flush=True)
        runs = [
            score(crops, fakes, folds_of(crops, fakes, way, seed), options.width, options.images, seed)
            for seed in range(options.repeats)
        ]
        told[way] = figures(np.mean(runs, axis=0), groups, videos)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
