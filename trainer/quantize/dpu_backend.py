"""The DPU's arithmetic without a DPU: power-of-two int8 weights from ONNX ones, and a scorer that answers as the card would.

What the card's engine does around the network is done by the engine's own code, so the figures are those of a card that runs these
integers, as far as its arithmetic is what `dpu_network` says.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from farm.contracts import ModelCard
from farm.errors import BadModel
from trainer.quantize.dpu_calibration import calibrate
from trainer.quantize.dpu_network import DpuArithmetic, DpuNetwork
from trainer.quantize.layers import read_onnx
from trainer.quantize.made import Made
from trainer.scoring import Scorer
from workers.engines.base import mask_cut, predictions
from workers.engines.fix_point import Quantizer, quantized_cut, real_values

BATCH = 8
ENGINE = "dpu-arithmetic"


def make(weights: Path, card: ModelCard, crops: NDArray[np.uint8]) -> Made:
    """Quantize an ONNX file on (N, S, S, 3) uint8 crops. Raises BadModel where a DPU does not have one of its operators."""
    bounds = (card.input_offset, 255 * card.input_scale + card.input_offset)
    network = calibrate(
        read_onnx(weights, card),
        crops,
        lambda some, fix_point: _written(some, Quantizer(card.input_scale, card.input_offset, fix_point)),
        (min(bounds), max(bounds)),
    )
    fix_points = {
        "input_fix_point": network.input_fix_point,
        "class_fix_point": network.fix_point(network.class_layer),
        "mask_fix_point": network.fix_point(network.mask_layer),
    }
    return Made(network.to_bytes(), ".npz", "power-of-two scales, rounding and shifts of the DPU", fix_points)


def open_scorer(card_path: Path, threads: int = 1) -> Scorer:
    """A scorer of weights that `make` made, given their card. Raises BadModel."""
    import torch

    card = ModelCard.load(card_path)
    weights = card_path.with_name(card.weights)
    content = weights.read_bytes()
    if hashlib.sha256(content).hexdigest() != card.sha256:
        raise BadModel(f"{weights} is not the file that its card {card_path} describes: quantize again")
    torch.set_num_threads(threads)
    network = DpuNetwork.from_bytes(content, str(weights))
    arithmetic = DpuArithmetic(network)
    quantizer = Quantizer(card.input_scale, card.input_offset, network.input_fix_point)
    cut = quantized_cut(mask_cut(card), network.fix_point(network.mask_layer))

    def score(crops: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        answers = [arithmetic.run(_written(crops[at : at + BATCH], quantizer)) for at in range(0, len(crops), BATCH)]
        classes, masks = (np.concatenate(parts) for parts in zip(*answers, strict=True))
        said = predictions(real_values(classes, network.fix_point(network.class_layer)), masks, card, cut=cut)
        return said.logits.astype(np.float64), said.masks

    facts = {"model": card.name, "version": card.version, "engine": ENGINE, "device": "cpu", "precision": "int8"}
    return Scorer(
        score, lambda: None, facts | {"sha256": card.sha256}, card.temperature, card.bias, card.threshold, card
    )


def _written(crops: NDArray[np.uint8], quantizer: Quantizer) -> NDArray[np.int8]:
    out = np.empty(crops.shape, np.int8)
    quantizer.quantize(np.ascontiguousarray(crops), out)
    return out
