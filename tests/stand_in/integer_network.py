"""A quantized network by integer reference, and the file that holds it. NumPy alone, Python 3.8; knows no runtime.

Arithmetic of the DPU as the facts say: NHWC int8, real = q * 2**-fix_point; products are summed exactly, then rounded half up and
saturated to the layer's fix point; weights were rounded half away from zero; a skip connection is requantized at the concat.
The file is a protobuf message in shape, as an .xmodel is: field 1 a name, field 2 JSON, field 3 the weights.
Letters: B pictures, H, W, C.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def save(path, header, weights):
    """Write a network: `header` is JSON (subgraphs, tensors, layers), `weights` int arrays by name."""
    packed = io.BytesIO()
    np.savez(packed, **weights)
    bodies = (b"stand-in", json.dumps(header).encode(), packed.getvalue())
    fields = [varint(number << 3 | 2) + varint(len(body)) + body for number, body in enumerate(bodies, start=1)]
    Path(path).write_bytes(b"".join(fields))


def load(path):
    """Read (header, weights); of any other whole message, one of no operators. Raises ValueError for what is none."""
    data = Path(path).read_bytes()
    fields, at = {}, 0
    while at < len(data):
        number, at = data[at] >> 3, at + 1
        length, shift = 0, 0
        while True:
            length |= (data[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if data[at - 1] < 0x80:
                break
        fields[number] = data[at : at + length]
        at += length
    if at != len(data):
        raise ValueError("not a whole message")
    if fields.get(1) != b"stand-in":
        return {"subgraphs": [], "operators": []}, {}
    with np.load(io.BytesIO(fields[3])) as arrays:
        return json.loads(fields[2].decode()), {name: arrays[name] for name in arrays.files}


def requantized(sums, shift):
    """Exact numbers times 2**-shift as int8: rounded half up, saturated."""
    return np.clip(np.floor(np.ldexp(np.asarray(sums, np.float64), -shift) + 0.5), -128, 127).astype(np.int8)


def rounded_weights(real, fix_point):
    """Real weights as int8: rounded half away from zero, saturated."""
    scaled = np.ldexp(np.asarray(real, np.float64), fix_point)
    return np.clip(np.sign(scaled) * np.floor(np.abs(scaled) + 0.5), -128, 127).astype(np.int8)


def exact(products):
    """The type in which so many products of int8 add up without losing a bit, and go through BLAS."""
    return np.float32 if products * 128 * 128 < 2**24 else np.float64


def conv(x, kernel, bias):
    """Exact sums of a stride-1 convolution with zero padding: (B, H, W, C) int8, (K, K, C, D) int8, (D,) int32."""
    size, _, c_in, c_out = kernel.shape
    kind = exact(size * size * c_in)
    b, h, w, _ = x.shape
    pad = size // 2
    padded = np.zeros((b, h + 2 * pad, w + 2 * pad, c_in), kind)
    padded[:, pad : pad + h, pad : pad + w] = x
    windows = [padded[:, row : row + h, column : column + w] for row in range(size) for column in range(size)]
    sums = np.concatenate(windows, axis=3).reshape(b * h * w, -1) @ kernel.reshape(-1, c_out).astype(kind)
    return sums.reshape(b, h, w, c_out).astype(np.float64) + bias


def raised(x, kernel, bias):
    """Exact sums of a 2x2 stride-2 transposed convolution: (B, H, W, C), (2, 2, C, D) -> (B, 2H, 2W, D)."""
    b, h, w, c_in = x.shape
    kind = exact(c_in)
    sums = np.einsum("bhwc,rscd->bhrwsd", x.astype(kind), kernel.astype(kind), optimize=True)
    return sums.reshape(b, 2 * h, 2 * w, kernel.shape[-1]).astype(np.float64) + bias


def blocks(x, size):
    b, h, w, c = x.shape
    return x.reshape(b, h // size, size, w // size, size, c)


def apply(layer, weights, values):
    """Run one layer: `values` are (int8 array, fix point) by name; return the pair that it makes."""
    kind, out_fix = layer["kind"], layer.get("fix_point")
    sources = [values[name] for name in layer["of"]]
    x, fix = sources[0]
    if kind in ("conv", "raise"):
        kernel, bias = weights[layer["name"] + ".kernel"], weights[layer["name"] + ".bias"]
        sums = (conv if kind == "conv" else raised)(x, kernel, bias)
        answer = requantized(sums, fix + layer["weight_fix_point"] - out_fix)
        return (np.maximum(answer, 0) if layer.get("relu") else answer), out_fix
    if kind == "max":
        out_fix = fix if out_fix is None else out_fix
        return requantized(blocks(x, layer["size"]).max(axis=(2, 4)), fix - out_fix), out_fix
    if kind == "mean":
        size = layer["size"]
        sums = blocks(x, size).sum(axis=(2, 4), dtype=np.int64)
        if "factor" in layer:  # the card's way: 21 / 1024 for 1 / 49
            return requantized(sums * layer["factor"], layer["shift"] + fix - out_fix), out_fix
        return requantized(sums / (size * size), fix - out_fix), out_fix
    return np.concatenate([requantized(value, at - out_fix) for value, at in sources], axis=3), out_fix


def compute(header, weights, pixels):
    """Run the layers on (B, S, S, 3) int8; return every named value, int8."""
    values = {"input": (pixels, header["input_fix_point"])}
    for layer in header["layers"]:
        values[layer["name"]] = apply(layer, weights, values)
    return {name: value for name, (value, _) in values.items()}
