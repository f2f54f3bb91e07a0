"""Makes int8 weights from a model's ONNX weights: post-training quantization by NNCF (min-max ranges, fast bias correction).

    python -m workers.engines.quantize CARD.json --crops FOLDER

Half of the crops set the ranges, the other half measures how far int8 answers from fp32; the figures go into the new card. The
result is an ONNX graph, `int8/<name>.onnx`, and its card beside it, where the openvino engine looks.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from farm.contracts import CROP_SIDE_PX, ModelCard, Predictions
from farm.errors import BadInput, EngineMissing, FarmError
from farm.media.crops import cut, square_box
from farm.media.faces import open_detector
from workers.engines import open_engine
from workers.engines.base import network_input
from workers.engines.weights import QUANTIZED_FROM, check_weights, int8_card_path

FEWEST_CROPS = 20
MOST_CROPS = 300
"""NNCF's own default for the size of a calibration set."""


def quantize(card_path: Path, crops: NDArray[np.uint8]) -> Path:
    """Make the int8 weights of the model with this card from (B, S, S, 3) uint8 face crops; the path of their card.

    Every second crop calibrates, the others measure. Raises BadInput for fewer than 20 crops, BadModel, EngineMissing.
    """
    if len(crops) < FEWEST_CROPS:
        raise BadInput(
            f"{len(crops)} crops are too few to quantize with; give {FEWEST_CROPS} or more faces of the kind to be scanned"
        )
    card = ModelCard.load(card_path)
    weights = card_path.with_name(card.weights)
    check_weights(weights, card)
    graph, made_with = _quantized(weights, card, crops[::2])
    int8_path = int8_card_path(card_path.parent, card)
    int8_path.parent.mkdir(exist_ok=True)
    int8_path.with_name(card.weights).write_bytes(graph)
    int8_card = dataclasses.replace(
        card,
        name=f"{card.name}-int8",
        sha256=hashlib.sha256(graph).hexdigest(),
        training={
            **card.training,
            QUANTIZED_FROM: card.sha256,
            "quantized_with": made_with,
            "calibration_crops": len(crops[::2]),
        },
        notes=(
            *card.notes,
            f"int8 weights of {card.name} {card.version}; threshold and calibration are those of the fp32 weights",
        ),
    )
    int8_path.write_text(int8_card.to_json())
    agreement = _agreement(weights, card, crops[1::2])
    int8_path.write_text(
        dataclasses.replace(int8_card, metrics={**card.metrics, "int8_against_fp32": agreement}).to_json()
    )
    return int8_path


def _quantized(weights: Path, card: ModelCard, crops: NDArray[np.uint8]) -> tuple[bytes, str]:
    """The quantized graph as bytes, and the name and version of what made it."""
    try:
        import nncf
        import onnx
    except ImportError as error:
        raise EngineMissing(
            f"quantizing needs NNCF and ONNX ({error}): pip install 'nncf>=3.4' 'onnx>=1.23'"
        ) from error
    data = nncf.Dataset(crops[:, None], lambda crop: {card.input_name: network_input(crop, card)})
    graph: Any = nncf.quantize(onnx.load(weights), data, preset=nncf.QuantizationPreset.MIXED, subset_size=len(crops))
    return graph.SerializeToString(deterministic=True), f"nncf {nncf.__version__}"


def _agreement(weights: Path, card: ModelCard, crops: NDArray[np.uint8]) -> dict[str, float]:
    """How far int8 answers from fp32 on crops that did not calibrate it."""
    fp32, int8 = (_scored(name, weights, card, crops) for name in ("onnx", "openvino"))
    apart = np.abs(fp32.p_fake - int8.p_fake)
    both, either = (fp32.masks & int8.masks).sum(), (fp32.masks | int8.masks).sum()
    return {
        "crops": len(crops),
        "p_fake_difference_mean": round(float(apart.mean()), 5),
        "p_fake_difference_max": round(float(apart.max()), 5),
        "same_side_of_half": round(float(((fp32.p_fake > 0.5) == (int8.p_fake > 0.5)).mean()), 5),
        "mask_iou": round(float(both / either) if either else 1.0, 5),
    }


def _scored(name: str, weights: Path, card: ModelCard, crops: NDArray[np.uint8]) -> Predictions:
    engine = open_engine(name, weights, card)
    try:
        return engine.predict(crops)
    finally:
        engine.close()


def load_crops(source: Path, card: ModelCard) -> NDArray[np.uint8]:
    """Up to 300 (B, S, S, 3) uint8 crops: an .npy of them, or a folder of pictures whose largest face is cut as the card says.

    From a larger folder evenly spaced pictures are taken. Raises BadInput.
    """
    if source.suffix == ".npy":
        crops = np.load(source, mmap_mode="r")
        if crops.dtype != np.uint8 or crops.shape[1:] != (CROP_SIDE_PX, CROP_SIDE_PX, 3):
            raise BadInput(
                f"{source} holds {crops.dtype} {crops.shape}, expected uint8 (B, {CROP_SIDE_PX}, {CROP_SIDE_PX}, 3)"
            )
        return np.ascontiguousarray(crops[_evenly(len(crops))])
    paths = sorted(path for path in source.glob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    found = list(_faces([paths[index] for index in _evenly(len(paths))], card))
    if not found:
        raise BadInput(f"no picture with a face in {source}")
    return np.stack(found)


def _evenly(count: int) -> NDArray[np.intp]:
    return np.unique(np.linspace(0, count - 1, min(count, MOST_CROPS)).astype(np.intp))


def _faces(paths: list[Path], card: ModelCard) -> Iterator[NDArray[np.uint8]]:
    import cv2

    detector = open_detector()
    for path in paths:
        bgr = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
        if bgr is None:
            continue
        rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
        faces = detector.detect(rgb)
        if faces:
            yield cut(rgb, square_box(max(faces, key=lambda face: face.box.area).box, card.crop_margin))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("card", type=Path, help="model card of the fp32 weights")
    parser.add_argument(
        "--crops",
        type=Path,
        required=True,
        help="folder of pictures with faces, or .npy of (B, 224, 224, 3) uint8 crops",
    )
    options = parser.parse_args()
    # NNCF reports its use to its makers unless told not to.
    os.environ["NNCF_CI"] = "1"  # noqa: TID251 - read by NNCF when it is imported
    try:
        path = quantize(options.card, load_crops(options.crops, ModelCard.load(options.card)))
    except FarmError as error:
        sys.stderr.write(f"quantize: {error}\n")
        return 1
    sys.stdout.write(f"{path}: {ModelCard.load(path).metrics['int8_against_fp32']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
