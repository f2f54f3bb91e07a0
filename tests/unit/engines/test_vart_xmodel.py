"""Files that are no xmodel are told before the vendor's runtime, which would abort, sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

from farm.errors import BadModel
from workers.engines.xmodel import check_xmodel

WHOLE = b"\x0a\x05graph" + b"\x12\x03abc" + b"\x1a\x80\x01" + b"x" * 128


def check(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "known.xmodel"
    path.write_bytes(content)
    check_xmodel(path, "0000:3b:00.0")


def test_a_whole_message_of_strings_and_messages_passes(tmp_path: Path) -> None:
    check(tmp_path, WHOLE)


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (b"", "is empty: copy it again"),
        (WHOLE[:-1], "cut short, 142 of at least 143 bytes: copy it again"),
        (WHOLE[:8], "no xmodel"),
        (b"\x08\x0a\x12\x07pytorch", "no xmodel.*not ONNX or other float ones.*trainer compile"),
        (b"PK\x03\x04" + b"\x00" * 100, "no xmodel"),
        (b"\xff" * 100, "no xmodel"),
        (b"\x02\x01a", "no xmodel"),
    ],
    ids=["empty", "one byte less", "half a field", "onnx", "torch", "noise", "field zero"],
)
def test_another_file_is_refused_with_the_card_and_the_remedy(tmp_path: Path, content: bytes, remedy: str) -> None:
    with pytest.raises(BadModel, match=f"card 0000:3b:00.0: .*{remedy}"):
        check(tmp_path, content)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match=r"cannot be read \(No such file or directory\): copy it again"):
        check_xmodel(tmp_path / "gone.xmodel", "card-0")
