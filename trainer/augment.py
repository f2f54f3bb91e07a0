"""What happens to any picture on its way to us: scaled, softened, compressed again and again. Knows no label: a recipe is
drawn before anyone asks whether the picture is real, and both twins of a pair get the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeVar, cast

import av
import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
_Image = TypeVar("_Image", NDArray[np.uint8], NDArray[np.float32])


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything random about one augmentation; applying it twice to one picture gives the same pixels."""

    flip: bool
    #: the window of the crop that is kept, as shares of S: left, top, side
    window: tuple[float, float, float]
    #: factors and offsets of the colours: contrast, saturation, brightness in grey levels, gamma, gain of R, G and B
    colour: tuple[float, ...]
    grey: bool
    #: side in pixels the face had in its video
    native_px: int
    #: sigma in px; below 0 sharpens
    blur: float
    noise: float
    noise_seed: int
    #: ("jpeg" | "h264", quality or CRF, side in px as a share of native), one per generation
    generations: tuple[tuple[str, int, float], ...]


Drawing = Callable[[np.random.Generator], Recipe]
"""Something that draws recipes."""
PLAIN = Recipe(False, (0.0, 0.0, 1.0), (1, 1, 0, 1, 1, 1, 1), False, 224, 0.0, 0.0, 0, ())
"""The recipe that leaves a crop of 224 px as it is."""


def draw(rng: np.random.Generator, side: int = 224) -> Recipe:
    """Draw a recipe. Half of the pictures come from a lower resolution than the crop's, two thirds are compressed."""
    keep = 1 / rng.uniform(1.0, 1.08)
    left, top = rng.uniform(0, 1 - keep, 2)
    plain = rng.random() < 0.3
    spread = 0.0 if plain else 1.0
    colour = (1 + spread * rng.uniform(-0.2, 0.2), 1 + spread * rng.uniform(-0.35, 0.3), spread * rng.uniform(-20, 20),
              float(np.exp(spread * rng.uniform(-0.25, 0.25))), *(1 + spread * rng.uniform(-0.08, 0.08, 3)))  # fmt: skip
    native = int(side * rng.uniform(0.42, 1.0)) if rng.random() < 0.55 else side
    blur = rng.choice([0.0, rng.uniform(0.3, 1.3), -rng.uniform(0.2, 0.8)], p=[0.7, 0.18, 0.12])
    count = int(rng.choice(4, p=[0.3, 0.4, 0.2, 0.1]))
    noise = rng.uniform(1, 6) if rng.random() < 0.2 else 0.0
    return Recipe(bool(rng.random() < 0.5), (left, top, keep), colour, bool(rng.random() < 0.1), native, float(blur), noise,
                  int(rng.integers(2**31)), tuple(_generation(rng) for _ in range(count)))  # fmt: skip


def video_like(rng: np.random.Generator) -> Recipe:
    """A recipe as hard as small faces in a twice compressed video: what thresholds must survive where only photographs are at hand."""
    base = draw(rng)
    native = int(rng.integers(90, 150))
    twice = tuple(("h264", int(rng.integers(23, 34)), 1.0) for _ in range(2))
    return replace(base, grey=False, native_px=native, blur=0.0, generations=twice)


def _generation(rng: np.random.Generator) -> tuple[str, int, float]:
    scale = float(rng.uniform(0.75, 1.1)) if rng.random() < 0.3 else 1.0
    if rng.random() < 0.5:
        return "jpeg", int(rng.integers(35, 96)), scale
    return "h264", int(rng.integers(18, 36)), scale


def apply(recipe: Recipe, crop: Pixels) -> Pixels:
    """An (S, S, 3) uint8 RGB crop after its recipe, (S, S, 3) again."""
    side = crop.shape[0]
    image = move(recipe, _tint(recipe, crop))
    image = _scale(image, recipe.native_px)
    if recipe.blur:
        soft = cv2.GaussianBlur(image, (0, 0), abs(recipe.blur) if recipe.blur > 0 else 1.0)
        sharp = cv2.addWeighted(image, 1 - recipe.blur, soft, recipe.blur, 0)
        image = np.asarray(soft if recipe.blur > 0 else sharp, np.uint8)
    if recipe.noise:
        grain = np.random.default_rng(recipe.noise_seed).normal(0, recipe.noise, image.shape)
        image = (image + grain).clip(0, 255).astype(np.uint8)
    for codec, quality, scale in recipe.generations:
        image = _CODECS[codec](_scale(image, round(recipe.native_px * scale)), quality)
    return _scale(image, side)


def move(recipe: Recipe, image: _Image) -> _Image:
    """The recipe's geometry alone (window and flip), for a crop or its mask."""
    side = image.shape[0]
    left, top, keep = recipe.window
    matrix = np.array([[1 / keep, 0, -left * side / keep], [0, 1 / keep, -top * side / keep]])
    moved = cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return cast(_Image, moved[:, ::-1].copy() if recipe.flip else moved)


def move_points(recipe: Recipe, points: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Where points (n, 2), in pixels of a crop of that side, lie after the recipe's geometry; in the order they came."""
    left, top, keep = recipe.window
    moved = (points - np.array([left, top]) * side) / keep
    if recipe.flip:
        moved[:, 0] = side - 1 - moved[:, 0]
    return np.asarray(moved, np.float32)


def move_five(recipe: Recipe, points: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """As `move_points` for a face's five points; in a mirrored face left and right change their names."""
    moved = move_points(recipe, points, side)
    return moved[[1, 0, 2, 4, 3]] if recipe.flip else moved


def _scale(image: Pixels, side: int) -> Pixels:
    if image.shape[0] == side:
        return image
    how = cv2.INTER_AREA if image.shape[0] > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (side, side), interpolation=how), np.uint8)


def _tint(recipe: Recipe, crop: Pixels) -> Pixels:
    contrast, saturation, brightness, gamma, *gain = recipe.colour
    levels = 255 * (np.arange(256) / 255) ** gamma
    levels = (levels - 128) * contrast + 128 + brightness
    tables = np.stack([levels * g for g in gain], axis=1).clip(0, 255).astype(np.uint8)
    image = cv2.LUT(crop, tables[None])
    share = 1.0 if recipe.grey else 1 - saturation
    if abs(share) < 0.01:
        return np.asarray(image, np.uint8)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(image, 1 - share, grey, share, 0), np.uint8)


def jpeg(image: Pixels, quality: int) -> Pixels:
    """One JPEG generation at a quality of 1 to 100."""
    _, packed = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)[:, :, ::-1])


def h264(image: Pixels, crf: int) -> Pixels:
    """One H.264 generation at a constant rate factor of 0 (best) to 51: the picture as the second, predicted frame of a short clip."""
    side = image.shape[0]
    even = cv2.copyMakeBorder(image, 0, side % 2, 0, side % 2, cv2.BORDER_REFLECT_101)
    encoder = av.VideoCodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = even.shape[1], even.shape[0], "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    encoder.options = {"crf": str(crf), "preset": "ultrafast", "tune": "zerolatency"}
    encoder.thread_count = 1
    # A frame shifted by a pixel before it makes motion compensation and its residuals part of the traces.
    frames = (np.roll(even, 1, axis=1), even)
    # OpenCV turns RGB into YUV and back ten times faster than a fresh swscale context would.
    planes = [np.asarray(cv2.cvtColor(np.ascontiguousarray(f), cv2.COLOR_RGB2YUV_I420), np.uint8) for f in frames]
    packets = [packet for yuv in planes for packet in encoder.encode(av.VideoFrame.from_ndarray(yuv, format="yuv420p"))]
    packets += encoder.encode(None)
    decoder = av.VideoCodecContext.create("h264", "r")
    decoder.thread_count = 1
    last = [frame for packet in (*packets, None) for frame in decoder.decode(packet)][-1]
    decoded = cv2.cvtColor(last.to_ndarray(), cv2.COLOR_YUV2RGB_I420)
    return np.ascontiguousarray(decoded[:side, :side])


_CODECS: dict[str, Callable[[Pixels, int], Pixels]] = {"jpeg": jpeg, "h264": h264}
