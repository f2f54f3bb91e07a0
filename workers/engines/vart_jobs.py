"""What the farm's side of a card keeps of its work: calls, the jobs they are cut into, and the life of the process that has them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from farm.errors import FarmError
from workers.engines.vart_process import CardProcess, Opened


@dataclass(slots=True)
class Call:
    """One `predict` under way: the raw answers of its crops, and how many jobs are still out."""

    #: (count,) and (count, S, S) raw int8
    classes: NDArray[np.int8]
    masks: NDArray[np.int8]
    jobs_out: int = 0
    error: FarmError | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One batch on the card."""

    slot: int
    #: whom it is for; None if it only asks the canary
    call: Call | None
    #: where its answers belong in the call
    rows: slice
    started_at: float
    #: it asks the golden pictures; a call that it has is held back until they are answered
    canary: bool = False


@dataclass(slots=True)
class Life:
    """One life of the card's process, with the jobs that it has."""

    process: CardProcess
    opened: Opened
    free: deque[int]
    jobs: dict[int, Job] = field(default_factory=dict)
