"""Whether a file can be an xmodel, told without the vendor's runtime, which aborts on any file that is not one.

An xmodel is one protobuf message whose fields are all length-delimited (strings, messages, maps), so the lengths found at its
top level must lead exactly to its end. That finds another format and a file cut short; the sha256 in the model card finds the rest.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from farm.errors import BadModel

LENGTH_DELIMITED = 2
LONGEST_VARINT = 10


def check_xmodel(path: Path, device: str) -> None:
    """Raise BadModel, naming the card and what to do, unless `path` is a whole message of the form of an xmodel."""
    if fault := xmodel_fault(path):
        raise BadModel(f"card {device}: {fault}")


def xmodel_fault(path: Path) -> str | None:
    """Why a file cannot be an xmodel and what to do about it, in words; None where it can."""
    try:
        with path.open("rb") as file:
            size, end = os.fstat(file.fileno()).st_size, 0
            while end < size:
                found = _field_end(file)
                if found is None:
                    return (
                        f"{path} is no xmodel: a card runs compiled int8 models, not ONNX or other float ones; "
                        "make one by `trainer quantize --backend nndct` and then `trainer compile`"
                    )
                end = found
                file.seek(end)
    except OSError as error:
        return f"xmodel {path} cannot be read ({error.strerror}): copy it again, or compile it with vai_c_xir"
    if not size:
        return f"xmodel {path} is empty: copy it again, or compile it with vai_c_xir"
    return f"xmodel {path} is cut short, {size} of at least {end} bytes: copy it again" if end != size else None


def _field_end(file: BinaryIO) -> int | None:
    """Where the field that starts here ends; None if it is none of an xmodel's."""
    tag, length = _varint(file), None
    if tag is not None and tag & 7 == LENGTH_DELIMITED and tag >> 3:
        length = _varint(file)
    return None if length is None else file.tell() + length


def _varint(file: BinaryIO) -> int | None:
    value = 0
    for position in range(LONGEST_VARINT):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << 7 * position
        if byte[0] < 0x80:
            return value
    return None
