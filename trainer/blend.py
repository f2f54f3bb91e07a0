"""Fakes out of real faces: an altered face laid back into a crop through a deformed soft mask. Knows no file and no label.

The kinds go from the classic self-blend (Shiohara and Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022) towards
what neural swaps look like: resampled inner faces, another person's face aligned by its five points and matched in colour, and
faces re-drawn by small generators, those kept out of training among them. Wherever the mask is 0 the fake equals its original to the bit.
Letters: S side of a crop; u and v are face coordinates, origin between eyes and mouth, unit the distance from eyes to mouth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.augment import jpeg
from trainer.config import UNSEEN
from trainer.resynth import INNER_PX

Pixels = NDArray[np.uint8]
Alpha = NDArray[np.float32]
_Image = TypeVar("_Image", NDArray[np.uint8], NDArray[np.float32])

KINDS = ("self", "resampled", "donor", "redrawn", UNSEEN)
MANIPULATED_ABOVE = 0.2
"""Where the mask's opacity exceeds this, a pixel counts as manipulated; below, hardly a grey level changes."""
REDRAWN_EDGE_PX = 5
MOST_GRAIN = 6.0
"""Grey levels (standard deviation): what is still lacking beyond it are edges, and no grain makes up for them."""

_HULL = ((-0.9, -0.75), (-0.5, -1.0), (0, -0.95), (0.5, -1.0), (0.9, -0.75), (0.92, 0), (0.76, 0.6), (0.42, 1.08), (0, 1.2),
         (-0.42, 1.08), (-0.76, 0.6), (-0.92, 0))  # fmt: skip


@dataclass(frozen=True, slots=True)
class View:
    """One face as material for a fake."""

    #: (S, S, 3) RGB
    crop: Pixels
    #: (5, 2) in crop pixels
    points: NDArray[np.float32]
    #: (R, R, 3), a generator's version of the inner face, if there is one
    redrawn: Pixels | None = None


def make_fake(target: View, donor: View, kind: str, rng: np.random.Generator) -> tuple[Pixels, Alpha]:
    """Blend a manipulated face into `target`. Returns the fake (S, S, 3) and the opacity (S, S) float32 in [0, 1] that made it.

    `donor` lends its face to the kind "donor" and, every second time, to re-drawn faces; the other kinds alter the target's own.
    """
    alpha = soft_mask(target.points, target.crop.shape[0], rng)
    if kind == "self":
        inner = _sharpness(_colour(_wobble(target.crop, rng), rng), rng)
    elif kind == "resampled":
        inner = _colour(_resample(_wobble(target.crop, rng), rng), rng, strength=0.3)
    elif kind == "donor":
        inner = align(donor.crop, donor.points, target)
        inner = _resample(inner, rng) if rng.random() < 0.6 else inner
    else:
        lender = donor if rng.random() < 0.5 else target
        inner = _redraw(lender, rng)
        inner = align(inner, lender.points, target) if lender is donor else _wobble(inner, rng)
        inner = _sharpness(inner, rng) if rng.random() < 0.5 else inner
    if kind != "self" and rng.random() < 0.6:
        inner = match_detail(inner, target.crop, alpha > 0.5, rng)
    if kind in ("donor", "redrawn", UNSEEN) or rng.random() < 0.4:
        inner = match_colour(inner, target.crop, alpha > 0.5, strength=rng.uniform(0.7, 1.0))
    return lay(inner, target.crop, alpha), alpha


def lay(inner: Pixels, target: Pixels, alpha: Alpha) -> Pixels:
    """alpha * inner + (1 - alpha) * target, rounded; exactly the target where alpha is 0."""
    weight = alpha[:, :, None]
    return (
        np.asarray(np.rint(target + weight * (inner.astype(np.float32) - target)), np.float32)
        .clip(0, 255)
        .astype(np.uint8)
    )


def soft_mask(points: NDArray[np.float32], side: int, rng: np.random.Generator) -> Alpha:
    """A random face-shaped opacity (S, S) float32 in [0, 1] about five points: hull, ellipse, box, or only a part; bent and softened."""
    shape = _polygon(rng)
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    down = mouth - eyes
    across = np.array([down[1], -down[0]], np.float32)
    corners = (eyes + mouth) / 2 + shape[:, :1] * across + shape[:, 1:] * down
    alpha: Alpha = np.zeros((side, side), np.float32)
    cv2.fillPoly(alpha, [np.rint(corners * 16).astype(np.int32)], 1.0, lineType=cv2.LINE_8, shift=4)
    alpha = _bend(alpha, rng.uniform(1, 5) * side / 224, rng, cells=int(rng.integers(4, 9)))
    sigma = rng.uniform(1.0, 12.0) * side / 224
    alpha = np.asarray(cv2.GaussianBlur(alpha, (0, 0), sigma), np.float32)
    # A Gaussian never quite ends; cut its tail so that "unchanged" means unchanged, and let some masks reach full opacity earlier.
    alpha = np.clip((alpha - 0.02) * rng.uniform(1.05, 1.4), 0, 1)
    return np.asarray(alpha * rng.choice([1.0, 1.0, 1.0, 0.85, 0.7]), np.float32)


def _polygon(rng: np.random.Generator) -> NDArray[np.float32]:
    """Corners (n, 2) of a mask in face coordinates (u, v)."""
    form = rng.choice(["hull", "ellipse", "box", "part"], p=[0.45, 0.2, 0.2, 0.15])
    grow = rng.uniform(0.85, 1.12, size=2)
    if form == "hull":
        corners = np.array(_HULL) * grow + rng.normal(0, 0.04, (len(_HULL), 2))
        corners[:5, 1] -= rng.uniform(-0.1, 0.4)
        return corners.astype(np.float32)
    turn = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    ring = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    if form == "box":
        # A superellipse: the rounded square of swap pipelines that paste an aligned crop back.
        ring = np.sign(ring) * np.abs(ring) ** 0.35
        return np.asarray(ring * [0.95, 1.15] * grow + [0, 0.1], np.float32)
    if form == "part":
        centre, half = [((0, 0.5), (0.7, 0.65)), ((0, -0.5), (0.95, 0.4)), ((0, 0.35), (0.85, 0.8))][
            int(rng.integers(3))
        ]
        return (ring * half * grow + centre).astype(np.float32)
    return (ring * [0.92, 1.2] * grow + [0, rng.uniform(-0.1, 0.15)]).astype(np.float32)


def align(crop: Pixels, points: NDArray[np.float32], target: View) -> Pixels:
    """A face turned, scaled and shifted so that its five points lie on the target's (least squares similarity)."""
    # The stubs promise a matrix; points that fall together give none.
    matrix = cast(NDArray[np.float64] | None, cv2.estimateAffinePartial2D(points, target.points, method=cv2.LMEDS)[0])
    if matrix is None:
        return crop
    side = target.crop.shape[0]
    return np.asarray(
        cv2.warpAffine(crop, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101), np.uint8
    )


def match_colour(inner: Pixels, target: Pixels, where: NDArray[np.bool_], strength: float) -> Pixels:
    """Give `inner` the target's mean and spread per Lab channel within `where` (Reinhard et al., 2001), by `strength` in [0, 1]."""
    if where.sum() < 16:
        return inner
    source, goal = (cv2.cvtColor(x, cv2.COLOR_RGB2LAB).astype(np.float32) for x in (inner, target))
    s_mean, s_std = source[where].mean(axis=0), source[where].std(axis=0)
    g_mean, g_std = goal[where].mean(axis=0), goal[where].std(axis=0)
    moved = (source - s_mean) * np.clip(g_std / (s_std + 1e-3), 0.5, 2.0) + g_mean
    mixed = np.clip(source + strength * (moved - source), 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(mixed, cv2.COLOR_LAB2RGB), np.uint8)


def match_detail(inner: Pixels, target: Pixels, where: NDArray[np.bool_], rng: np.random.Generator) -> Pixels:
    """Give `inner` as much fine detail within `where` as the target has there, by gain and, beyond a gain of 3, by grain.

    So that a fake cannot be told by its softness: good swaps are as sharp as their video.
    """
    if where.sum() < 16:
        return inner
    sigma = rng.uniform(1.0, 2.5)
    ours, goal = inner.astype(np.float32), target.astype(np.float32)
    detail = ours - cv2.GaussianBlur(ours, (0, 0), sigma)
    have, want = detail[where].std(), (goal - cv2.GaussianBlur(goal, (0, 0), sigma))[where].std()
    gain = float(np.clip(want / (have + 1e-3), 0.3, 3.0))
    lacking = min(MOST_GRAIN, max(0.0, float(want**2 - (gain * have) ** 2)) ** 0.5)
    grain = rng.standard_normal((*inner.shape[:2], 1), np.float32) * lacking
    return np.asarray((ours + (gain - 1) * detail + grain).clip(0, 255), np.uint8)


def _redraw(view: View, rng: np.random.Generator) -> Pixels:
    """The face with its inner part re-drawn, but nearer to the original than our generators draw: good ones leave fainter traces.

    What is coarser than cells of a random size is the original's, colours above all, and a share of the rest is mixed in.
    """
    if view.redrawn is None:
        return view.crop
    low, high = INNER_PX
    whole, size = view.crop.copy(), (high - low, high - low)
    original = whole[low:high, low:high].astype(np.float32)
    drawn = np.asarray(cv2.resize(view.redrawn, size, interpolation=cv2.INTER_LINEAR), np.float32)
    if rng.random() < 0.85:
        cells = int(np.exp(rng.uniform(np.log(8), np.log(48))))
        coarse = cv2.resize(original - drawn, (cells, cells), interpolation=cv2.INTER_AREA)
        drawn += cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    mixed = np.rint(original + rng.uniform(0.5, 1.0) * (drawn - original)).clip(0, 255).astype(np.uint8)
    # A generator's outermost pixels are drawn with less to see, and a line along them would give it away.
    edge = slice(REDRAWN_EDGE_PX, high - low - REDRAWN_EDGE_PX)
    whole[low:high, low:high][edge, edge] = mixed[edge, edge]
    return whole


def _wobble(crop: Pixels, rng: np.random.Generator) -> Pixels:
    """The same face a little elsewhere: shifted up to 3 %, scaled up to 4 %, turned up to 2 degrees, bent by a pixel or two."""
    side = crop.shape[0]
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-2, 2), rng.uniform(0.96, 1.04))
    matrix[:, 2] += rng.uniform(-0.03, 0.03, 2) * side
    moved = cv2.warpAffine(crop, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return _bend(np.asarray(moved, np.uint8), rng.uniform(0, 2.0) * side / 224, rng, cells=6)


def _bend(image: _Image, amplitude_px: float, rng: np.random.Generator, cells: int) -> _Image:
    """Displace pixels by a smooth random field of `cells` x `cells` knots."""
    side = image.shape[0]
    field = rng.normal(0, amplitude_px, (2, cells, cells)).astype(np.float32)
    dx, dy = (cv2.resize(f, (side, side), interpolation=cv2.INTER_CUBIC) for f in field)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    return cast(_Image, cv2.remap(image, x + dx, y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101))


def _colour(crop: Pixels, rng: np.random.Generator, strength: float = 1.0) -> Pixels:
    """Shift channels, brightness, contrast and saturation a little."""
    image: NDArray[Any] = crop.astype(np.float32)
    image = (
        (image - 128) * (1 + strength * rng.uniform(-0.12, 0.12))
        + 128
        + strength * rng.uniform(-14, 14, 3)
        + strength * rng.uniform(-12, 12)
    )
    grey = image.mean(axis=2, keepdims=True)
    image = grey + (image - grey) * (1 + strength * rng.uniform(-0.3, 0.3))
    return np.asarray(image.clip(0, 255), np.uint8)


def _sharpness(crop: Pixels, rng: np.random.Generator) -> Pixels:
    """Blur, sharpen, or resample."""
    way = rng.random()
    if way < 0.35:
        return _resample(crop, rng)
    soft = cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.5, 1.6))
    amount = rng.uniform(0.4, 1.2) if way < 0.65 else -1.0
    return np.asarray(cv2.addWeighted(crop, 1 + amount, soft, -amount, 0), np.uint8)


def _resample(crop: Pixels, rng: np.random.Generator) -> Pixels:
    """Down to a generator's size and up again, sometimes denoised or compressed on the way: the softness of an inner face."""
    side = crop.shape[0]
    if rng.random() < 0.35:
        return _upsample_as_decoders_do(crop, rng)
    small_px = int(side * rng.uniform(0.3, 0.75))
    small = cv2.resize(crop, (small_px, small_px), interpolation=cv2.INTER_AREA)
    way = rng.random()
    if way < 0.25:
        small = cv2.bilateralFilter(small, 5, rng.uniform(10, 40), 3)
    elif way < 0.5:
        small = jpeg(np.asarray(small, np.uint8), int(rng.integers(40, 95)))
    how = [cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4, cv2.INTER_NEAREST][
        int(rng.choice(4, p=[0.4, 0.35, 0.2, 0.05]))
    ]
    return np.asarray(cv2.resize(small, (side, side), interpolation=how), np.uint8)


def _upsample_as_decoders_do(crop: Pixels, rng: np.random.Generator) -> Pixels:
    """Once or twice doubled by zeros between the pixels and a kernel that is not quite an interpolation: the grid of learnt upsampling.

    Odena et al., "Deconvolution and Checkerboard Artifacts", 2016: a kernel's phases do not sum to the same.
    """
    side, doublings = crop.shape[0], int(rng.integers(1, 3))
    small_px = int(rng.integers(36, 64)) * (4 >> doublings)
    image = cv2.resize(crop, (small_px, small_px), interpolation=cv2.INTER_AREA).astype(np.float32)
    uneven = np.exp(rng.uniform(np.log(0.006), np.log(0.05)))
    for _ in range(doublings):
        wide = np.zeros((2 * image.shape[0], 2 * image.shape[1], 3), np.float32)
        wide[::2, ::2] = image
        kernel = np.outer(_TENT, _TENT) * (1 + rng.normal(0, uneven, (4, 4)))
        image = np.asarray(
            cv2.filter2D(wide, -1, kernel.astype(np.float32), borderType=cv2.BORDER_REFLECT_101), np.float32
        )
    drawn = image.clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(drawn, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)


_TENT = (0.25, 0.75, 0.75, 0.25)
