"""How a training does on its validation side while it runs: the averaged weights, the same pairs after every epoch."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.checkpoint import State
from trainer.curves import sample_grid
from trainer.dataset import Batches, to_input
from trainer.material import Material
from trainer.measure import auc, iou

WATCH_SEED = 1
"""Of the validation's pairs: not the training's, and the same in every run."""
SHOWN = 6
"""Fakes in the picture of samples."""
PAIRS_AT_ONCE = 16


@torch.no_grad()
def watch(state: State, validation: Material) -> tuple[dict[str, float], NDArray[np.uint8]]:
    """({"validation/frame_auc", "validation/mask_iou"}, a picture of samples), over `run.validation_images` pictures.

    mask_iou is the mean over fakes whose mask is known, 0 where none is.
    """
    config = state.config
    device = torch.device(config.run.device)
    layout = torch.channels_last if state.channels_last else torch.contiguous_format
    wanted = max(1, config.run.validation_images // 2)
    pairs = min(PAIRS_AT_ONCE, wanted)
    batches, model = Batches(validation, pairs, WATCH_SEED), state.average.eval()
    logits, overlaps, grid = [], [], None
    for number in range(math.ceil(wanted / pairs)):
        count = min(pairs, wanted - number * pairs)
        batch = batches.batch(number)
        image = to_input(batch.crops.to(device)).contiguous(memory_format=layout)
        out = model(image)
        scores = out.class_logit[:, 0].double().cpu().numpy()
        logits.append((scores[:count], scores[pairs : pairs + count]))
        said, true = torch.sigmoid(out.mask_logit[:, 0]).float().cpu().numpy(), batch.masks[:, 0].numpy()
        overlaps += [
            iou(said[i] > 0.5, true[i] > 0)
            for i in range(pairs, pairs + count)
            if batch.mask_known[i] and true[i].any()
        ]
        if grid is None:
            shown = slice(pairs, min(2 * pairs, pairs + SHOWN))
            grid = sample_grid(
                batch.crops[shown].permute(0, 2, 3, 1).numpy(), said[shown], true[shown].astype(np.float32)
            )
    assert grid is not None
    real, fake = (np.concatenate(scores) for scores in zip(*logits, strict=True))
    return {
        "validation/frame_auc": auc(real, fake),
        "validation/mask_iou": float(np.mean(overlaps)) if overlaps else 0.0,
    }, grid
