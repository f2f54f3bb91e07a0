"""Golden pictures that a card is asked at its start and now and then, and what it must answer.

After a "CU timeout" in the field a card may answer the same features for every picture, without any error. Four different
pictures are dealt to the lanes of a batch, so every lane is asked and equal answers are seen. What the model card gives
(`dpu["canary"]`) must be met to the bit; without it the first answer is the reference, if it tells the pictures apart.
Letters: B lanes of the card's batch, S side of a picture in pixels.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from farm.contracts import CROP_SIDE_PX, ModelCard
from farm.errors import BadModel

PICTURES = 4
"""As many as the smallest DPU variant has lanes."""

Answer = tuple[int, str]
"""The raw class value and the sha256 of the raw mask."""


def golden_pictures() -> NDArray[np.uint8]:
    """(4, S, S, 3) uint8, C-contiguous: a ramp to the right, a ramp upwards, a coloured chequerboard, noise. The same for ever."""
    y, x = np.mgrid[0:CROP_SIDE_PX, 0:CROP_SIDE_PX].astype(np.int64)
    channel = np.arange(3)
    ramp = (x[..., None] + 40 * channel) % 256
    rise = (255 - y[..., None] + 80 * channel) % 256
    board = ((x // 16 + y // 16)[..., None] % 2) * (255 - 60 * channel)
    place = (y * CROP_SIDE_PX + x)[..., None] * 3 + channel
    noise = (place * 1_103_515_245 + 12_345) // 65_536 % 256
    return np.ascontiguousarray(np.stack([ramp, rise, board, noise]).astype(np.uint8))


class Canary:
    """Deals the golden pictures to the lanes of a card and judges its answers."""

    def __init__(self, card: ModelCard, lanes: int) -> None:
        """Raises BadModel if the model card's reference cannot be used."""
        #: (B,) the picture each lane is asked
        self.dealt = np.arange(lanes) % PICTURES
        self.reference = _reference(card)

    def wrong(self, classes: NDArray[np.int8], masks: NDArray[np.int8]) -> str | None:
        """What is wrong with the raw answers, (B,) and (B, S, S); None where they are right. The first right ones are kept."""
        answers = [
            (int(logit), hashlib.sha256(mask.tobytes()).hexdigest())
            for logit, mask in zip(classes.ravel(), masks, strict=True)
        ]
        if self.reference is None:
            return self._learn(answers)
        lanes = [lane for lane, picture in enumerate(self.dealt) if answers[lane] != self.reference[picture]]
        if not lanes:
            return None
        same = ", and answers all pictures the same" if len(set(answers)) == 1 else ""
        return f"lanes {lanes} of {len(answers)} answer the golden pictures wrongly{same}"

    def _learn(self, answers: list[Answer]) -> str | None:
        known = answers[:PICTURES]
        if len(set(known)) == 1:
            return "it answers four different golden pictures the same"
        lanes = [lane for lane, picture in enumerate(self.dealt) if answers[lane] != known[picture]]
        if lanes:
            return f"lanes {lanes} answer the golden pictures otherwise than the first lanes do"
        self.reference = known
        return None

    def to_card(self) -> dict[str, list[Any]] | None:
        """The reference in the form of the model card's `dpu["canary"]`; None before the first right answer."""
        if self.reference is None:
            return None
        return {
            "class": [logit for logit, _ in self.reference],
            "mask_sha256": [digest for _, digest in self.reference],
        }


def all_the_same(lanes: NDArray[np.int8]) -> bool:
    """Whether every lane of a batch holds the same values: answers like that, to different pictures, are a card gone wrong."""
    return all(np.array_equal(lanes[0], lane) for lane in lanes[1:])


def _reference(card: ModelCard) -> list[Answer] | None:
    given = card.dpu.get("canary")
    if given is None:
        return None
    try:
        reference = [
            (int(logit), str(digest)) for logit, digest in zip(given["class"], given["mask_sha256"], strict=True)
        ]
    except (TypeError, KeyError, ValueError) as error:
        raise BadModel(
            f"model card {card.name}: dpu.canary needs lists 'class' and 'mask_sha256' of one length ({error})"
        ) from error
    if len(reference) != PICTURES or len(set(reference)) == 1:
        raise BadModel(f"model card {card.name}: dpu.canary needs {PICTURES} answers that are not all the same")
    return reference
