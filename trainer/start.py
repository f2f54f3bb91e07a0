"""A training that begins with the weights of another: those of its checkpoint, or of an exported model by its card.

Whom the other training saw is not known here: measure on nobody it learnt from.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from farm.contracts import ModelCard
from farm.errors import BadInput, BadModel
from trainer.checkpoint import State, read_checkpoint
from trainer.model import UYNet

FILTER_RMS = 0.07
"""Every filter before a batch norm is brought to this root mean square; its scale is free, and the learning rate wants one like a
trained network's: those of the transposed convolutions of the shipped 0.1, which no norm follows, have .06 to .09."""


def start(state: State, source: Path, images: Tensor) -> None:
    """Give a fresh training the weights of another, and its facts the name of it. See `load`."""
    state.facts["started_from"] = load(state.model, source, images)
    state.average.load_state_dict(state.model.state_dict())


def load(model: UYNet, source: Path, images: Tensor) -> dict[str, Any]:
    """Give a network the weights of a checkpoint (.pt) or of a model card (.json) with its ONNX file beside it.

    An exported graph has no batch norms any more: they are set so that on `images` (B, 3, S, S), network input of training crops, the
    network says what the graph says, in training as in prediction. The quarter head is not exported and stays as it is.
    Returns name, version and sha256 of what was loaded, and as far as known the pictures it saw and what it had started from itself.
    Raises BadInput where there is no such file or its width is another, BadModel where its graph or weights are not a U-YNet's.
    """
    return _from_checkpoint(model, source) if source.suffix == ".pt" else _from_card(model, source, images)


def _from_checkpoint(model: UYNet, path: Path) -> dict[str, Any]:
    parts = read_checkpoint(path)
    _check_width(path, parts["config"]["width"], model)
    try:
        model.load_state_dict(parts["average"])
    except RuntimeError as error:
        raise BadModel(f"checkpoint {path} does not fit its own configuration: {error}") from error
    whose = {key: parts["config"][key] for key in ("name", "version")}
    before = {key: parts["facts"][key] for key in ("started_from",) if key in parts["facts"]}
    images = parts["step"] * 2 * parts["config"]["run"]["pairs"]
    return whose | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "images_seen": images} | before


def _from_card(model: UYNet, path: Path, images: Tensor) -> dict[str, Any]:
    card = ModelCard.load(path)
    _check_width(path, card.width, model)
    weights = path.with_name(card.weights)
    if weights.suffix != ".onnx" or not weights.exists():
        raise BadInput(
            f"{path} names {card.weights}: a training starts from a checkpoint or from a card whose ONNX file stands beside it"
        )
    _set(model, _convolutions(weights), weights, images)
    return {"name": card.name, "version": card.version, "sha256": card.sha256}


def _check_width(path: Path, width: int, model: UYNet) -> None:
    if width != model.width:
        raise BadInput(f"{path} has base width {width}, the training's is {model.width}; set width = {width}")


def _convolutions(path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Name of a convolution in the network -> its weights and bias in an exported graph."""
    import onnx

    try:
        graph = onnx.load(path).graph
    except Exception as error:  # protobuf raises whatever it meets in damaged bytes
        raise BadModel(f"{path} is damaged or no ONNX file: {error}") from error
    arrays = {one.name: torch.from_numpy(np.array(onnx.numpy_helper.to_array(one))) for one in graph.initializer}
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose") and len(node.input) == 3 and set(node.input[1:]) <= arrays.keys():
            name = node.input[1].removeprefix("model.").removesuffix(".weight")
            found[name] = arrays[node.input[1]], arrays[node.input[2]]
    return found


@torch.no_grad()
def _set(model: UYNet, graph: dict[str, tuple[Tensor, Tensor]], path: Path, images: Tensor) -> None:
    modules = dict(model.named_modules())
    hooks = []
    for name, module in modules.items():
        if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d) or name == "quarter_head":
            continue
        if name not in graph or graph[name][0].shape != module.weight.shape:
            raise BadModel(
                f"{path} is no U-YNet of `trainer export`: its graph lacks the weights of {name}, or they have another shape"
            )
        weight, bias = (array.to(module.weight) for array in graph[name])
        if module.bias is not None:
            module.weight.copy_(weight)
            module.bias.copy_(bias)
            continue
        scale = FILTER_RMS / weight.pow(2).mean((1, 2, 3)).sqrt().clamp(min=1e-12)
        module.weight.copy_(weight * scale[:, None, None, None])
        norm = modules[_norm_after(name)]
        assert isinstance(norm, nn.BatchNorm2d)
        hooks.append(norm.register_forward_pre_hook(partial(_fit, scale=scale, bias=bias)))
    # In one pass: a norm is set when its input arrives, and gives the next layer what the graph would give it.
    model.eval()(images)
    for hook in hooks:
        hook.remove()


def _norm_after(name: str) -> str:
    block, _, number = name.rpartition(".")
    return f"{block}.{int(number) + 1}"


def _fit(norm: nn.BatchNorm2d, given: tuple[Tensor], scale: Tensor, bias: Tensor) -> None:
    """Let a norm answer x / scale + bias to the batch x it is given, whether it trains or predicts."""
    variance, mean = torch.var_mean(given[0], (0, 2, 3), correction=0)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_((variance + norm.eps).sqrt() / scale)
    norm.bias.copy_(mean / scale + bias)
