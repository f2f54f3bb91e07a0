"""Scores -> tracks -> verdict. Pure: knows no SQL, no pixels, no clock; the same scores and card give the same words.

A track is one face followed through the video; its number is global per video, so the parts of a track that lie in different
crop batches are joined by that number (`stitch`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from farm.contracts import ModelCard, Verdict, VerdictLabel
from farm.errors import BadObject

PSEUDO_CROPS = 1.0
"""A high track score is pulled towards the middle of the uncertain zone as if this many undecided crops stood beside the real ones:
one crop alone keeps half of its distance, ten crops keep 91 %. A false detection of a single frame must not decide a video."""

CROPS_FOR_REAL = 3
"""REAL is a statement about the whole video: it is not said from fewer scored crops than this."""

_EDGE = 1e-9
"""Keeps logit(p) finite for thresholds of exactly 0 or 1."""


@dataclass(frozen=True, slots=True)
class TrackScores:
    """The rollup of one track, or of the part of it that lies in one batch."""

    track: int
    #: crops scored
    crops: int
    #: sum and largest of the raw class logits, fake positive
    logit_sum: float
    logit_max: float

    def __post_init__(self) -> None:
        if self.crops < 0 or not (math.isfinite(self.logit_sum) and math.isfinite(self.logit_max)):
            raise BadObject(
                f"track {self.track}: {self.crops} crops, logit sum {self.logit_sum}, max {self.logit_max} is no score"
            )


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x) in [0, 1], without overflow."""
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def calibrate(logit: float, card: ModelCard) -> float:
    """Calibrated probability in [0, 1] of a raw logit, by the card's temperature and bias (Guo et al. 2017)."""
    return sigmoid((logit - card.bias) / card.temperature)


def stitch(parts: Iterable[TrackScores]) -> dict[int, TrackScores]:
    """Join the parts of each track, by track number; the order of the parts does not matter. Parts without crops vanish."""
    groups: dict[int, list[TrackScores]] = {}
    for part in parts:
        if part.crops:
            groups.setdefault(part.track, []).append(part)
    return {
        track: TrackScores(
            track, sum(p.crops for p in group), math.fsum(p.logit_sum for p in group), max(p.logit_max for p in group)
        )
        for track, group in sorted(groups.items())
    }


def track_score(track: TrackScores, card: ModelCard) -> float:
    """Calibrated probability in [0, 1] that this face is manipulated: the mean logit over its crops, few high crops pulled back.

    The mean logit (and not the largest) because the largest of many crops of a real face climbs with the video's length.
    Only high scores are pulled: a thin track that scores low must not lift a video whose other faces are clearly low.
    """
    evidence = (track.logit_sum / track.crops - card.bias) / card.temperature
    middle = _logit((card.real_below + card.threshold) / 2)
    if evidence > middle:
        evidence = middle + (evidence - middle) * (track.crops / (track.crops + PSEUDO_CROPS))
    return sigmoid(evidence)


def decide(
    tracks: Sequence[TrackScores],
    card: ModelCard,
    *,
    summary: Mapping[str, Any] | None,
    batches_failed: int = 0,
    error: str | None = None,
) -> Verdict:
    """The farm's word on one video.

    `tracks` may hold several parts per track; `summary` is what the split saw (`scan_videos.summary`), None if it never ended;
    `error` says why the bytes could not be read and makes the verdict UNREADABLE whatever was scored before.
    """
    joined = stitch(tracks)
    seen = summary or {}
    if error is not None or (not joined and not batches_failed and not seen.get("frames_read")):
        return Verdict(VerdictLabel.UNREADABLE, None, reasons=_unreadable(error, seen))
    if not joined:
        label = VerdictLabel.UNCERTAIN if batches_failed else VerdictLabel.NO_FACE
        return Verdict(label, None, reasons=(*_material(seen, 0), *_failed(batches_failed)))
    scores = {track: track_score(part, card) for track, part in joined.items()}
    p_fake = max(scores.values())
    crops = sum(part.crops for part in joined.values())
    label = _label(p_fake, crops, batches_failed, card)
    reasons = (
        *_why(label, p_fake, joined, scores, card),
        *_material(seen, crops),
        *_failed(batches_failed),
        *_about_model(label, len(scores), card),
    )
    return Verdict(label, p_fake, scores, reasons)


def _label(p_fake: float, crops: int, batches_failed: int, card: ModelCard) -> VerdictLabel:
    if p_fake >= card.threshold:
        return VerdictLabel.FAKE
    if p_fake <= card.real_below and crops >= CROPS_FOR_REAL and not batches_failed:
        return VerdictLabel.REAL
    return VerdictLabel.UNCERTAIN


def _logit(p: float) -> float:
    p = min(max(p, _EDGE), 1 - _EDGE)
    return math.log(p / (1 - p))


def _unreadable(error: str | None, seen: Mapping[str, Any]) -> tuple[str, ...]:
    if error is None and not seen:
        error = "The split left no record of this video, so nothing can be said about it."
    return (_sentence(error or "no frame of this video could be decoded"), *_notes(seen))


def _why(
    label: VerdictLabel, p_fake: float, joined: Mapping[int, TrackScores], scores: Mapping[int, float], card: ModelCard
) -> tuple[str, ...]:
    worst = max(scores, key=lambda track: (scores[track], -track))
    part = joined[worst]
    faces = "the only face" if len(scores) == 1 else f"face {worst}, the highest of {len(scores)} faces"
    said = f"The score is {p_fake:.3f}, that of {faces}, from {_count(part.crops, 'crop')}"
    crops = sum(p.crops for p in joined.values())
    hint = ", as a weak hint only" if card.demonstration else ""
    if label is VerdictLabel.FAKE:
        reasons = [f"{said}; FAKE is said at {card.threshold:.3f} or above{hint}."]
    elif label is VerdictLabel.REAL:
        reasons = [f"{said}; REAL is said where no face is above {card.real_below:.3f}{hint}."]
    elif p_fake > card.real_below:
        reasons = [
            f"{said}; it lies between {card.real_below:.3f} and {card.threshold:.3f}, where this model is not entitled to a word."
        ]
    elif crops < CROPS_FOR_REAL:
        reasons = [f"{said}; it is low, but REAL is not said from fewer than {CROPS_FOR_REAL} scored crops."]
    else:
        reasons = [f"{said}; it is low, but REAL is not said while a part of the video went unscored."]
    peak = calibrate(max(p.logit_max for p in joined.values()), card)
    if label is not VerdictLabel.FAKE and peak >= card.threshold:
        reasons.append(
            f"Single crops reach {peak:.3f}, above the threshold, while no face does so over its whole length: "
            "look at the timeline for a short manipulated passage."
        )
    return tuple(reasons)


def _material(seen: Mapping[str, Any], crops: int) -> tuple[str, ...]:
    if not seen:
        return ()
    frames = _count(int(seen.get("frames_read", 0)), "frame")
    rejected = {str(why).replace("_", " "): int(n) for why, n in dict(seen.get("rejected") or {}).items() if n}
    kept_out = sum(rejected.values())
    found = max(int(seen.get("faces_found", 0)), crops + kept_out)
    if not found:
        return (f"{frames} read; no face was found in any of them.", *_notes(seen))
    by_reason = ", ".join(f"{n} {why}" for why, n in sorted(rejected.items()))
    said = f"{frames} read; {_count(found, 'face')} found"
    if kept_out and not crops and kept_out == found:
        said += f", all kept out of the verdict ({by_reason})."
    elif kept_out:
        said += f", {kept_out} kept out of the verdict ({by_reason}), {crops} scored."
    else:
        said += f", {crops} scored."
    return (said, *_notes(seen))


def _notes(seen: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(_sentence(str(note)) for note in seen.get("notes") or ())


def _sentence(text: str) -> str:
    """The text with a capital at its start and a full stop at its end."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _failed(batches_failed: int) -> tuple[str, ...]:
    if not batches_failed:
        return ()
    were = "was" if batches_failed == 1 else "were"
    return (f"{_count(batches_failed, 'crop batch', 'crop batches')} could not be scored and {were} left out.",)


def _about_model(label: VerdictLabel, faces: int, card: ModelCard) -> tuple[str, ...]:
    rate = card.false_positive_rate
    said = [
        f"The model card states a false positive rate of {_percent(rate)} per real face at the threshold {card.threshold:.3f}."
    ]
    if label is VerdictLabel.FAKE and faces > 1:
        rate = 1 - (1 - rate) ** faces
        said.append(f"With {faces} faces judged, it rises to about {_percent(rate)} for a wholly real video.")
    if card.demonstration:
        name = f"{card.name} {card.version}"
        if label in (VerdictLabel.FAKE, VerdictLabel.REAL):
            said.append(
                f"Weak hint only: {name} is a demonstration model, and {label} here is no finding. Do not act on it alone."
            )
        else:
            said.append(f"{name} is a demonstration model: it abstains widely, and its scores are weak hints only.")
    return tuple(said)


def _percent(share: float) -> str:
    """A share in [0, 1] as a percentage with two significant digits where it is small."""
    return f"{share * 100:.2g} %" if share < 0.1 else f"{share * 100:.0f} %"


def _count(n: int, one: str, many: str | None = None) -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"
