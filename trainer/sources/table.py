"""Any data set that a CSV file describes: `path` (or `file`), `label`, and as far as known `original`, `group`, `method`.

Paths are relative to the CSV file's folder. `original` is such a path, or the name of a file beside its fake. An empty label means that
nobody knows: the row is left out. Other columns are not looked at.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from farm.errors import BadInput
from trainer.sources.listing import FAKE, Listing, Remark, Source, label_of, listing


def read(file: Path) -> Listing:
    """List what a CSV file names. Raises BadInput for a file that is no CSV or lacks the two columns that must be there."""
    rows = _rows(file)
    named = {row["path"] for row in rows}
    sources: list[Source] = []
    remarks: list[Remark] = []
    for row in rows:
        video, group = row["path"], row.get("group") or ""
        label = label_of(row["label"])
        if not video:
            remarks.append(Remark(f"line {row['line']}", "no path"))
        elif label == FAKE:
            method = row.get("method") or "unknown"
            sources.append(Source(video, FAKE, _original(row.get("original") or "", video, named), group, method))
        elif label:
            sources.append(Source.real(video, group))
        else:
            reason = "label is neither REAL nor FAKE" if row["label"] else "no label"
            remarks.append(Remark(video, reason, repr(row["label"]) if row["label"] else ""))
    return listing(file.parent, "csv", sources, remarks)


def _original(stated: str, fake: str, named: set[str]) -> str:
    beside = (Path(fake).parent / stated).as_posix()
    return beside if stated and stated not in named else stated


def _rows(file: Path) -> list[dict[str, str]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, restval="")
            columns = {(name or "").strip() for name in reader.fieldnames or ()}
            rows = [_row(row, reader.line_num) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{file} cannot be read as CSV ({error})") from error
    if "label" not in columns or not columns & {"path", "file"}:
        raise BadInput(f"{file} has the columns {', '.join(sorted(columns))}; it needs label, and path or file")
    return rows


def _row(row: dict[Any, Any], line: int) -> dict[str, str]:
    plain = {
        key.strip(): value.strip() for key, value in row.items() if isinstance(key, str) and isinstance(value, str)
    }
    path = plain.get("path") or plain.get("file") or ""
    return plain | {"path": Path(path).as_posix() if path else "", "label": plain.get("label", ""), "line": str(line)}
