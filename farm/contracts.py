"""The frozen values that cross a border inside the farm. They check themselves and know no SQL, queue or pixels' origin.

Letters in shapes: B crops in a batch, S side of a crop in pixels, H and W of a frame.
One polarity everywhere: `p_fake` in [0, 1], mask 1 = manipulated.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from farm.errors import BadModel, BadObject

CROP_SIDE_PX = 224
"""Side S of every crop, the input size of the network."""


ENGINE_NAMES = ("onnx", "openvino", "simulated", "vart")
"""Engines that a scan may ask for; the workers bring a module for each."""


class VerdictLabel(StrEnum):
    """What the farm says about one video."""

    FAKE = "FAKE"
    """At least one face scores above the model card's threshold."""
    REAL = "REAL"
    """Every judged face scores below the model card's lower bound."""
    UNCERTAIN = "UNCERTAIN"
    """Faces were scored, but the model is not entitled to a word."""
    NO_FACE = "NO_FACE"
    """The video was read and no usable face was found."""
    UNREADABLE = "UNREADABLE"
    """The bytes could not be read as video."""


@dataclass(frozen=True, slots=True)
class FrameRef:
    """Where a frame stands in its video."""

    #: 0-based number of the frame in presentation order; for policies that skip decoding, the packet's order
    index: int
    #: presentation time in seconds from the stream's start, never index / fps
    pts_seconds: float


@dataclass(frozen=True, slots=True)
class Box:
    """A box in source pixels after rotation: x to the right, y down; x1 and y1 exclusive. May reach over the frame's edge."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    @property
    def area(self) -> float:
        return max(0.0, self.width) * max(0.0, self.height)

    def iou(self, other: Box) -> float:
        """Intersection over union with another box, in [0, 1]."""
        w = min(self.x1, other.x1) - max(self.x0, other.x0)
        h = min(self.y1, other.y1) - max(self.y0, other.y0)
        inter = max(0.0, w) * max(0.0, h)
        union = self.area + other.area - inter
        return inter / union if union > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Face:
    """One detected face in one frame."""

    box: Box
    #: the detector's confidence in [0, 1]
    confidence: float
    #: (5, 2) float32 in source pixels: left eye, right eye, nose, left and right mouth corner as seen in the image; None if the
    #: detector has none
    points: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Crop:
    """Where one face crop came from; its pixels are a row of the batch's array."""

    frame: FrameRef
    #: the face's own box, as the detector gave it
    face_box: Box
    #: the square that was cut (face box widened by the margin), in source pixels; maps a mask back onto its frame
    crop_box: Box
    #: 0-based number of the track in its video
    track: int
    #: the detector's confidence in [0, 1]
    confidence: float


@dataclass(frozen=True, slots=True)
class CropBatch:
    """Up to a batch's worth of crops of one video, in order of frame then track."""

    #: 0-based number of the batch within its video
    index: int
    #: (B, S, S, 3) uint8 RGB, C-contiguous
    pixels: NDArray[np.uint8]
    #: B entries, row i describes pixels[i]
    crops: tuple[Crop, ...]

    def __post_init__(self) -> None:
        shape = (len(self.crops), CROP_SIDE_PX, CROP_SIDE_PX, 3)
        if self.pixels.dtype != np.uint8 or self.pixels.shape != shape:
            raise BadObject(
                f"crop batch {self.index}: pixels are {self.pixels.dtype} {self.pixels.shape}, expected uint8 {shape}"
            )
        if not self.crops:
            raise BadObject(f"crop batch {self.index} is empty")


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What an engine is and what it likes to be fed."""

    #: registered name: onnx, openvino, vart, simulated
    name: str
    #: what runs the arithmetic, for the record: "cpu", "0000:3b:00.0", "simulated-0"
    device: str
    #: "fp32", "int8"; "simulated" for scores that no network made
    precision: str
    #: crops per call that the engine computes at once; a batch of any size may still be given
    batch: int
    #: sha256 of the file that is run where that is not the model card's own (its int8 weights); else empty
    weights_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a network says about a crop batch."""

    #: (B,) float32 raw class logit, fake is positive
    logits: NDArray[np.float32]
    #: (B,) float32 in [0, 1], sigmoid of the logit, uncalibrated
    p_fake: NDArray[np.float32]
    #: (B, S, S) bool, True = manipulated
    masks: NDArray[np.bool_]

    def __post_init__(self) -> None:
        b = self.logits.shape[0] if self.logits.ndim == 1 else -1
        if (
            self.logits.shape != (b,)
            or self.p_fake.shape != (b,)
            or self.masks.shape != (b, CROP_SIDE_PX, CROP_SIDE_PX)
        ):
            raise BadObject(
                f"predictions disagree: logits {self.logits.shape}, p_fake {self.p_fake.shape}, masks {self.masks.shape}"
            )
        if not (np.isfinite(self.logits).all() and np.isfinite(self.p_fake).all()):
            raise BadObject("predictions hold NaN or infinity")
        if ((self.p_fake < 0) | (self.p_fake > 1)).any():
            raise BadObject("p_fake is outside [0, 1]")

    @property
    def mask_area(self) -> NDArray[np.float32]:
        """(B,) float32 share of manipulated pixels, in [0, 1]."""
        # counted mask by mask: NumPy counts a whole boolean array ten times as fast as it averages one along axes
        counts = [np.count_nonzero(mask) for mask in self.masks]
        return np.array(counts, np.float32) / np.float32(CROP_SIDE_PX * CROP_SIDE_PX)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The farm's word on one video, with what it rests on."""

    label: VerdictLabel
    #: calibrated probability in [0, 1] that the video holds a manipulated face; None where nothing was scored
    p_fake: float | None
    #: calibrated probability per track number
    track_scores: dict[int, float] = field(default_factory=dict)
    #: plain sentences a reader can check: why this label, what was left out, what went wrong
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What stands beside shipped weights: enough to run them rightly and to distrust them rightly. Stored as JSON."""

    name: str
    version: str
    #: file name beside the card
    weights: str
    sha256: str
    #: base width W of the U-YNet
    width: int
    #: names of the graph's tensors
    input_name: str
    class_output: str
    mask_output: str
    #: real = (uint8 * scale) + offset per channel, RGB; the input is NCHW float32
    input_scale: float
    input_offset: float
    #: "fake" if a positive logit means fake; "real" as the seed's class output (the engine converts)
    logit_polarity: str
    #: the face box is widened by this share of its longer side on each side
    crop_margin: float
    #: a mask pixel is manipulated where its sigmoid is above this
    mask_threshold: float
    #: p = sigmoid((logit - bias) / temperature), fitted on validation data only
    temperature: float
    bias: float
    #: FAKE at or above this calibrated video score
    threshold: float
    #: measured share of real validation faces above the threshold, with its sample size
    false_positive_rate: float
    #: REAL at or below this calibrated video score; between the two the verdict is UNCERTAIN
    real_below: float
    #: a demonstration model abstains: its FAKE and REAL are worded as weak hints
    demonstration: bool
    #: free text: data, licence, recipe
    training: dict[str, Any] = field(default_factory=dict)
    #: measured figures: validation AUC, AUC on the 11 pairs, intervals, dates
    metrics: dict[str, Any] = field(default_factory=dict)
    #: a compiled model's alone, every key optional: "fingerprint" (hexadecimal text) and "dpu_name" of the DPU it was compiled
    #: for, "batch" of one job; "input_fix_point", "class_fix_point", "mask_fix_point"; "canary", the golden pictures' answers
    #: (workers/engines/canary.py)
    dpu: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.real_below <= self.threshold <= 1:
            raise BadModel(f"model card {self.name}: 0 <= real_below <= threshold <= 1 does not hold")
        if self.logit_polarity not in ("fake", "real"):
            raise BadModel(
                f"model card {self.name}: logit_polarity is {self.logit_polarity!r}, expected 'fake' or 'real'"
            )
        for name in ("input_scale", "input_offset", "crop_margin", "mask_threshold", "temperature", "bias"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise BadModel(f"model card {self.name}: {name} is {value!r}, expected a finite number")
        if self.temperature <= 0:
            raise BadModel(f"model card {self.name}: temperature must be above 0")

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse a card. Raises BadModel on unknown or missing fields."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise BadModel(f"model card does not parse: {error}") from error
        return cls.from_values(values)

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Self:
        """A card from its JSON object, as it stands in a file or a row. Raises BadModel on unknown or missing fields."""
        if not isinstance(values, dict):
            raise BadModel(f"a model card is one JSON object, not a {type(values).__name__}")
        try:
            return cls(**values | {"notes": tuple(values.get("notes", ()))})
        except (TypeError, ValueError, AttributeError) as error:
            raise BadModel(f"model card does not parse: {error}") from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a card from its file. Raises BadModel."""
        try:
            return cls.from_json(path.read_text())
        except OSError as error:
            raise BadModel(f"model card {path} cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise BadModel(f"model card {path} cannot be read: {error}") from error
        except BadModel as error:
            raise BadModel(f"{path}: {error}") from error

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"
