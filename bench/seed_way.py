"""The seed's own way through a video, for comparison: OpenCV decodes every frame, the detector looks at every frame, the largest face
is cut and goes through eager PyTorch alone; the video's score is the mean over its frames.

Detector, cut and weights are the farm's own. Everything runs on one thread, which costs the fewest CPU-seconds.
Run as `python -m bench.seed_way CARD.json VIDEO...`; prints one line of JSON per video, {"name", "frames", "faces", "p_fake"}.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from farm.contracts import ModelCard
from farm.media.crops import cut, square_box
from farm.media.faces import Detector, open_detector
from trainer.model import UYNet


def load(weights: Path, card: ModelCard) -> UYNet:
    """The PyTorch network with the numbers of an exported graph, in which batch normalisation was folded into the convolutions."""
    graph = onnx.load(weights).graph
    tensors = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    waiting: dict[tuple[int, ...], list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            kernel, bias = (tensors[name] for name in node.input[1:3])
            waiting[tuple(kernel.shape)].append((kernel, bias))
    network = UYNet(card.width).eval()
    with torch.no_grad():
        for layer, norm in _called_layers(network):
            kernel, bias = waiting[tuple(layer.weight.shape)].pop(0)
            layer.weight.copy_(kernel)
            (layer if norm is None else norm).bias.copy_(bias)
            if norm is not None:
                norm.running_var.fill_(1 - norm.eps)
    return network


def _called_layers(network: UYNet) -> list[tuple[nn.Module, nn.Module | None]]:
    """Convolutions in the order of their call, each with the batch normalisation that follows it."""
    called: list[nn.Module] = []
    layers = [
        layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d)
    ]
    hooks = [layer.register_forward_hook(lambda layer, *_: called.append(layer)) for layer in layers]
    network(torch.zeros(1, 3, 224, 224))
    for hook in hooks:
        hook.remove()
    followers = [*called[1:], None]
    return [
        (layer, after if isinstance(after, nn.BatchNorm2d) else None)
        for layer, after in zip(called, followers, strict=True)
        if not isinstance(layer, nn.BatchNorm2d)
    ]


def score(path: Path, network: UYNet, detector: Detector, card: ModelCard) -> dict[str, object]:
    """Every frame of one video, one by one."""
    video, frames, scores = cv2.VideoCapture(str(path)), 0, []
    while True:
        read, bgr = video.read()
        if not read:
            break
        frames += 1
        rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        faces = detector.detect(rgb)
        if not faces:
            continue
        largest = max(faces, key=lambda face: face.box.area)
        crop = cut(rgb, square_box(largest.box, card.crop_margin))
        image = torch.from_numpy(crop).permute(2, 0, 1)[None].float() * card.input_scale + card.input_offset
        logit = network(image).class_logit.item()
        scores.append(float(torch.sigmoid(torch.tensor(logit if card.logit_polarity == "fake" else -logit))))
    return {
        "name": path.name,
        "frames": frames,
        "faces": len(scores),
        "p_fake": float(np.mean(scores)) if scores else None,
    }


def main(card_path: str, *videos: str) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    card = ModelCard.load(Path(card_path))
    network = load(Path(card_path).with_name(card.weights), card)
    detector = open_detector()
    with torch.inference_mode():
        for video in videos:
            row = score(Path(video), network, detector, card)
            print(f"seed's way: {row['name']}, {row['frames']} frames", file=sys.stderr, flush=True)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
