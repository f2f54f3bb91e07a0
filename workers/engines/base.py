"""What every engine promises, and the arithmetic around a network that all of them share.

Pixels go in as the farm keeps them, `Predictions` come out in the farm's polarity. This file knows the model card, but no
runtime, no file and no device. Letters: B crops in a call, S side of a crop in pixels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from farm.contracts import CROP_SIDE_PX, EngineSpec, ModelCard, Predictions
from farm.errors import BadModel, BadObject, EngineBusy


class Engine(Protocol):
    """Scores crops. `predict` may be called by several threads at once; a closed engine stays closed."""

    @property
    def spec(self) -> EngineSpec:
        """What runs the arithmetic, for the record."""
        ...

    def predict(self, pixels: NDArray[np.uint8]) -> Predictions:
        """Score (B, S, S, 3) uint8 RGB crops, B >= 1; the array is left as it was.

        Raises BadObject for another shape or dtype, BadModel if the network answers in a shape that is not a U-YNet's,
        and EngineBusy (a retry elsewhere can help) if the engine is closed, died or hung.
        """
        ...

    def close(self) -> None:
        """Give the device back; may be called again."""
        ...


@runtime_checkable
class Watched(Protocol):
    """An engine on a card that may be lost and that is asked golden pictures."""

    #: times its process was lost since it was opened
    losses: int

    @property
    def right_at(self) -> float:
        """When the golden pictures were last answered rightly, in seconds of time()."""
        ...


def check_pixels(pixels: NDArray[np.uint8]) -> int:
    """Return B of a (B, S, S, 3) uint8 array. Raises BadObject for anything else."""
    if not isinstance(pixels, np.ndarray):
        raise BadObject(f"pixels are a {type(pixels).__name__}, expected a NumPy array")
    side = CROP_SIDE_PX
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (side, side, 3) or not pixels.shape[0]:
        raise BadObject(f"pixels are {pixels.dtype} {pixels.shape}, expected uint8 (B, {side}, {side}, 3) with B >= 1")
    return int(pixels.shape[0])


def network_input(pixels: NDArray[np.uint8], card: ModelCard) -> NDArray[np.float32]:
    """Turn (B, S, S, 3) uint8 into the network's (B, 3, S, S) float32, C-contiguous: value * scale + offset."""
    planes = np.empty((pixels.shape[0], 3, *pixels.shape[1:3]), np.float32)
    np.multiply(pixels.transpose(0, 3, 1, 2), np.float32(card.input_scale), out=planes)
    planes += np.float32(card.input_offset)
    return planes


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logistic function in [0, 1], computed in double precision so that large logits neither overflow nor warn."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64))), np.float32)


def mask_cut(card: ModelCard) -> float:
    """The mask logit above which the card calls a pixel manipulated. Raises BadModel for a threshold outside ]0, 1[."""
    if not 0 < card.mask_threshold < 1:
        raise BadModel(f"model card {card.name}: mask_threshold is {card.mask_threshold}, expected above 0 and below 1")
    return math.log(card.mask_threshold / (1 - card.mask_threshold))


def predictions(
    class_output: NDArray[Any], mask_output: NDArray[Any], card: ModelCard, cut: float | None = None
) -> Predictions:
    """Turn a network's raw outputs, B class logits and (B, 1, S, S) mask logits, into the farm's polarity.

    `cut` is the value above which a mask pixel is manipulated where the mask output is in other units than logits.
    This is the one place where a card of polarity "real" is turned round; masks mean "manipulated" under either.
    Raises BadModel for other shapes.
    """
    side, count = CROP_SIDE_PX, class_output.shape[0] if class_output.ndim else 0
    if class_output.size != count or mask_output.shape not in ((count, 1, side, side), (count, side, side)):
        raise BadModel(
            f"model {card.name} answers {card.class_output} {class_output.shape} and "
            f"{card.mask_output} {mask_output.shape}, expected (B, 1) and (B, 1, {side}, {side})"
        )
    logits = class_output.reshape(count).astype(np.float32)
    if card.logit_polarity == "real":
        logits = -logits
    masks = mask_output.reshape(count, side, side) > (mask_cut(card) if cut is None else cut)
    return Predictions(logits=logits, p_fake=sigmoid(logits), masks=masks)


def joined(parts: list[Predictions]) -> Predictions:
    """The predictions of consecutive blocks of crops as one."""
    if len(parts) == 1:
        return parts[0]
    return Predictions(
        logits=np.concatenate([part.logits for part in parts]),
        p_fake=np.concatenate([part.p_fake for part in parts]),
        masks=np.concatenate([part.masks for part in parts]),
    )


class NetworkEngine(ABC):
    """An engine around a runtime that takes the float input and answers the two raw outputs."""

    def __init__(self, card: ModelCard, spec: EngineSpec) -> None:
        mask_cut(card)
        self._card = card
        self._closed = False
        self.spec = spec

    @abstractmethod
    def run(self, planes: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Compute the class and mask logits of one full block, (spec.batch, 3, S, S) float32; safe in threads."""

    def predict(self, pixels: NDArray[np.uint8]) -> Predictions:
        count, block = check_pixels(pixels), self.spec.batch
        if self._closed:
            raise EngineBusy(f"the {self.spec.name} engine on {self.spec.device} is closed")
        return joined([self._block(pixels[start : start + block]) for start in range(0, count, block)])

    def try_blank(self) -> None:
        """Score one black crop, so that an engine that opened can run. Raises BadModel."""
        try:
            self.predict(np.zeros((1, CROP_SIDE_PX, CROP_SIDE_PX, 3), np.uint8))
        except (BadObject, EngineBusy) as error:
            raise BadModel(f"model {self._card.name} does not run on the {self.spec.name} engine: {error}") from error

    def _block(self, pixels: NDArray[np.uint8]) -> Predictions:
        count, missing = pixels.shape[0], self.spec.batch - pixels.shape[0]
        planes = network_input(pixels, self._card)
        if missing:
            planes = np.concatenate([planes, np.zeros((missing, *planes.shape[1:]), np.float32)])
        class_output, mask_output = self.run(planes)
        return predictions(class_output[:count], mask_output[:count], self._card)

    def close(self) -> None:
        self._closed = True
