"""Values -> HTML files. Knows how a number, a time and a name are written for a reader; knows no SQL and no pixels.

Everything that comes from outside (names, notes, reasons) is escaped by Jinja2, and a content security policy lets no script run
but the one that stands here and lets nothing load: a hostile file name stays text.
"""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from farm.contracts import VerdictLabel
from farm.db.results.sums import PENDING
from farm.report.timeline import clock

VERDICTS = [str(label) for label in VerdictLabel]
WORDS = {
    "FAKE": "FAKE",
    "REAL": "REAL",
    "UNCERTAIN": "UNCERTAIN",
    "NO_FACE": "NO FACE",
    "UNREADABLE": "UNREADABLE",
    PENDING: "PENDING",
}
MEANINGS = {
    "FAKE": "At least one face scores above the threshold.",
    "REAL": "Every judged face scores below the lower bound.",
    "UNCERTAIN": "The model is not entitled to a word.",
    "NO_FACE": "The video was read, no usable face was found.",
    "UNREADABLE": "The bytes could not be read as video.",
    PENDING: "Not decided: its turn has not come yet, or the scan was cancelled first.",
}
DASHES = ("none", "9 4", "2 4", "12 4 2 4", "none", "9 4", "2 4", "12 4 2 4", "1 3")
ABBREVIATIONS = {"auc": "AUC", "eer": "EER", "fpr": "FPR", "iou": "IoU", "ci": "CI", "cpu": "CPU", "gpu": "GPU"}
NAME_LIMIT = 400
"""Longer names are cut in the middle where they are shown; the data files hold them whole."""


def write_page(template: str, path: Path, context: Mapping[str, Any]) -> None:
    """Render a template into a file, piece by piece: the page is never whole in memory."""
    page = _environment().get_template(template)
    with path.open("wb") as file:
        page.stream({**context, "written_at": moment(datetime.now(UTC).timestamp())}).dump(
            file, "utf-8", "backslashreplace"
        )


def score(p: float | None) -> str:
    """A probability in [0, 1] with three digits, never rounded up to a certainty that the model does not have."""
    if p is None:
        return "none"
    if 0 < p < 0.0005:
        return "<0.001"
    return ">0.999" if 0.9995 <= p < 1 else f"{p:.3f}"


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage; small ones keep two significant digits."""
    return f"{share * 100:.2g} %" if 0 < share < 0.1 else f"{share * 100:.0f} %"


def count(n: int | None) -> str:
    """A whole number with thousands separated; nothing where it is not known."""
    return "" if n is None else f"{n:,}"


def moment(seconds: float | None) -> str:
    """Seconds since the epoch as a date and time in UTC."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def length(seconds: float | None) -> str:
    """A duration or time of a video."""
    return "" if seconds is None else clock(seconds)


def name(text: str) -> str:
    """Text from outside on one line: control and direction characters shown as escapes, so that a name cannot pose as another."""
    shown = "".join(ch if ch == " " or unicodedata.category(ch)[0] not in "CZ" else _escape(ch) for ch in text)
    return shown if len(shown) <= NAME_LIMIT else f"{shown[: NAME_LIMIT - 60]} … {shown[-57:]}"


def tally(counts: Mapping[str, int]) -> str:
    """Counts by verdict in words: 3 FAKE, 1 NO FACE."""
    return ", ".join(f"{count(n)} {WORDS[verdict]}" for verdict, n in counts.items()) or "none"


def facts(values: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    """A JSON object as (name, text) pairs in its own order; what is nested is told in one line."""
    for key, value in (values or {}).items():
        if value is not None and value != {}:
            yield _title(key), _text(value)


def _title(key: object) -> str:
    return " ".join(ABBREVIATIONS.get(word, word) for word in str(key).split("_"))


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{_title(key)} {_inner(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return (" to " if len(value) == 2 else ", ").join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _inner(value: object) -> str:
    return f"({_text(value)})" if isinstance(value, Mapping) else _text(value)


def _escape(ch: str) -> str:
    if unicodedata.category(ch) in ("Zs", "Cn", "Co"):
        return " " if unicodedata.category(ch) == "Zs" else ch
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(ch, f"\\u{ord(ch):04x}")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("farm", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _shipped("table.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "style": Markup(_shipped("style.css")),  # noqa: S704 - our own file
        "script": Markup(script),  # noqa: S704 - our own file
        "policy": f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        "verdicts": VERDICTS,
        "words": WORDS,
        "meanings": MEANINGS,
        "dashes": DASHES,
    }
    environment.filters |= {
        "score": score,
        "percent": percent,
        "count": count,
        "moment": moment,
        "clock": length,
        "name": name,
        "facts": facts,
        "tally": tally,
    }
    return environment


def _shipped(file_name: str) -> str:
    return files("farm.report").joinpath(file_name).read_text("utf-8")
