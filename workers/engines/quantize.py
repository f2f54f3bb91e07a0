"""Makes int8 weights from a model's ONNX weights: post-training quantization by NNCF (min-max ranges, fast bias correction).

    python -m workers.engines.quantize CARD.json --crops FOLDER

The 1 x 1 convolutions that end the two heads stay fp32: they cost nothing (8.3 CPU-ms per crop instead of 8.1) and keep the logits
(of W=16 weights they correlate with those of fp32 by .997 instead of .87). Half of the crops set the ranges, the other half measures
how far int8 answers from fp32. The figures go into the new card; weights that answer too far off are not kept. The result is
`int8/<name>.zip` and its card beside it, where the openvino engine looks.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from farm.contracts import CROP_SIDE_PX, ModelCard, Predictions
from farm.errors import BadInput, BadModel, EngineMissing, FarmError
from farm.media.crops import cut, square_box
from farm.media.faces import open_detector
from workers.engines import open_engine
from workers.engines.base import network_input
from workers.engines.openvino import packed, pointwise, read_fp32
from workers.engines.weights import QUANTIZED_FROM, check_weights, int8_card_path

FEWEST_CROPS = 20
MOST_CROPS = 300
"""From more crops than this, evenly spaced ones are taken."""
FARTHEST_MEAN = 0.05
"""Mean difference of p_fake from that of the fp32 weights above which int8 weights are worth nothing."""


def quantize(card_path: Path, crops: NDArray[np.uint8]) -> Path:
    """Make the int8 weights of the model with this card from (B, S, S, 3) uint8 face crops; the path of their card.

    Every second crop calibrates, the others measure. Raises BadInput for fewer than 20 crops, EngineMissing, and BadModel where
    the int8 weights answer too far from the fp32 ones.
    """
    if len(crops) < FEWEST_CROPS:
        raise BadInput(
            f"{len(crops)} crops are too few to quantize with; give {FEWEST_CROPS} or more faces of the kind to be scanned"
        )
    card = ModelCard.load(card_path)
    weights = card_path.with_name(card.weights)
    check_weights(weights, card)
    content, made_with = _quantized(weights, card, crops[::2])
    path = int8_card_path(card_path.parent, card)
    int8_card = dataclasses.replace(
        card,
        name=f"{card.name}-int8",
        weights=f"{path.stem}.zip",
        sha256=hashlib.sha256(content).hexdigest(),
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
    fp32 = _scored("onnx", weights, card, crops[1::2])
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / int8_card.weights
        trial.write_bytes(content)
        agreement = _agreement(fp32, _scored("openvino", trial, int8_card, crops[1::2]))
    if agreement["p_fake_difference_mean"] > FARTHEST_MEAN:
        raise BadModel(
            f"the int8 weights of {card.name} answer too far from the fp32 ones and are not kept: {agreement}"
        )
    path.parent.mkdir(exist_ok=True)
    path.with_name(int8_card.weights).write_bytes(content)
    path.write_text(dataclasses.replace(int8_card, metrics={**card.metrics, "int8_against_fp32": agreement}).to_json())
    return path


def _quantized(weights: Path, card: ModelCard, crops: NDArray[np.uint8]) -> tuple[bytes, str]:
    """The weights file, and the name and version of what made it."""
    try:
        import nncf
    except ImportError as error:
        raise EngineMissing(f"quantizing needs NNCF ({error}): pip install 'nncf>=3.4' 'openvino>=2026.4'") from error
    data = nncf.Dataset(crops[:, None], lambda crop: {card.input_name: network_input(crop, card)})
    network = read_fp32(weights)
    heads = nncf.IgnoredScope(names=pointwise(network))
    return packed(nncf.quantize(network, data, subset_size=len(crops), ignored_scope=heads)), f"nncf {nncf.__version__}"


def _scored(name: str, weights: Path, card: ModelCard, crops: NDArray[np.uint8]) -> Predictions:
    engine = open_engine(name, weights, card)
    try:
        return engine.predict(crops)
    finally:
        engine.close()


def _agreement(fp32: Predictions, int8: Predictions) -> dict[str, float]:
    """How far int8 answers from fp32 on crops that did not calibrate it."""
    apart = np.abs(fp32.p_fake - int8.p_fake)
    both, either = (fp32.masks & int8.masks).sum(), (fp32.masks | int8.masks).sum()
    return {
        "crops": len(apart),
        "p_fake_difference_mean": round(float(apart.mean()), 5),
        "p_fake_difference_max": round(float(apart.max()), 5),
        "same_side_of_half": round(float(((fp32.p_fake > 0.5) == (int8.p_fake > 0.5)).mean()), 5),
        "mask_iou": round(float(both / either) if either else 1.0, 5),
    }


def load_crops(source: Path, card: ModelCard) -> NDArray[np.uint8]:
    """Up to 300 (B, S, S, 3) uint8 crops: an .npy of them, or a folder of pictures whose largest face is cut as the card says.

    Raises BadInput.
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
