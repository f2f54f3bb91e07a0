"""Frees an ONNX graph from the input size it was exported with. Knows the wire format of ONNX, nothing of faces.

Old exporters fix the example's shape and list every weight as an input. ONNX Runtime then refuses other sizes and folds
no constants. The few records concerned are rewritten in the protobuf wire format
(protobuf.dev/programming-guides/encoding), so that the `onnx` package stays out of the farm's dependencies.
"""

from __future__ import annotations

from collections.abc import Iterator

from farm.errors import BadModel

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MODEL_GRAPH = 7
GRAPH_INPUT, GRAPH_OUTPUT, GRAPH_VALUE_INFO = 11, 12, 13
VALUE_NAME, VALUE_TYPE, TYPE_TENSOR, TENSOR_ELEMENT = 1, 2, 1, 1
FLOAT = 1
"""Field numbers of ModelProto, GraphProto, ValueInfoProto and TypeProto, and an element type, from onnx.proto."""


def free_sizes(model: bytes, input_name: str) -> bytes:
    """The same model with one float input of any size and its weights as constants. Raises BadModel if damaged."""
    try:
        return b"".join(
            _record(MODEL_GRAPH, _free_graph(value, input_name.encode())) if number == MODEL_GRAPH else raw
            for number, value, raw in _records(model)
        )
    except (IndexError, ValueError, StopIteration) as error:
        raise BadModel("the ONNX file does not parse; it is damaged or no ONNX file") from error


def _free_graph(graph: bytes, input_name: bytes) -> bytes:
    kept = []
    for number, value, raw in _records(graph):
        if number == GRAPH_VALUE_INFO:
            continue
        if number not in (GRAPH_INPUT, GRAPH_OUTPUT):
            kept.append(raw)
            continue
        name = next(content for field, content, _ in _records(value) if field == VALUE_NAME)
        if number == GRAPH_OUTPUT or name == input_name:
            element = _varint(TENSOR_ELEMENT << 3 | VARINT) + _varint(FLOAT)
            kept.append(_record(number, _record(VALUE_NAME, name) + _record(VALUE_TYPE, _record(TYPE_TENSOR, element))))
    return b"".join(kept)


def _records(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Each record of a message: its field number, its content, and the record as it stands."""
    at = 0
    while at < len(message):
        start = at
        key, at = _read_varint(message, at)
        kind = key & 7
        if kind == VARINT:
            content, (_, end) = at, _read_varint(message, at)
        elif kind == LENGTH:
            size, content = _read_varint(message, at)
            end = content + size
        elif kind in (FIXED32, FIXED64):
            content, end = at, at + (4 if kind == FIXED32 else 8)
        else:
            raise ValueError(f"wire type {kind}")
        if end > len(message):
            raise ValueError("a record reaches over its message's end")
        yield key >> 3, message[content:end], message[start:end]
        at = end


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _record(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | LENGTH) + _varint(len(content)) + content
