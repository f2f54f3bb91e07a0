"""Quantizes a U-YNet with the vendor's `pytorch_nndct`, in the vendor's Python 3.8. `trainer quantize --backend nndct` puts this
script into a folder beside what it needs; it imports torch, NumPy and pytorch_nndct alone.

    python nndct_quantize.py --quant_mode calib --device cpu [--fast_finetune]
    python nndct_quantize.py --quant_mode test  --device cpu [--fast_finetune]

calib runs the calibration crops and writes `quantize_result/`; test writes `quantize_result/UYNet_int.xmodel` for vai_c_xir, and then
answers the held-out crops, `answers.npz`. Batch norms are folded already, and sigmoids are left to the host: a DPU has none.
Letters: B crops, S side, K side of a kernel, C channels in, D channels out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

CALIBRATION_BATCH = 8
NETWORK, CALIBRATION, HELD_OUT, ANSWERS = "network.npz", "calibration.npy", "held_out.npy", "answers.npz"
RESULT, XMODEL, CALIBRATED_FOR = "quantize_result", "UYNet_int.xmodel", "calibrated_for.txt"
INFO = "quant_info.json"
CALIBRATION_FILES = (CALIBRATED_FOR, INFO, "bias_corr.pth", "param.pth")
"""The first says of which network and crops the others, the vendor's, are: it is removed first and written last."""
FEWEST, MOST = 100, 1000


class UYNet(nn.Module):
    """The network, from its list of layers. The class's name becomes that of the xmodel."""

    def __init__(self, header: dict[str, Any], arrays: dict[str, Any]) -> None:
        super().__init__()
        self.plan = header["layers"]
        self.answers = [header["class_layer"], header["mask_layer"]]
        for number, layer in enumerate(self.plan):
            made = _module(layer, arrays)
            if made is not None:
                self.add_module("layer_{}".format(number), made)
            if layer["relu"]:
                self.add_module("relu_{}".format(number), nn.ReLU())

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 3, S, S) -> class (B, 1, 1, 1) and mask (B, 1, S, S) logits."""
        values = {"input": image}
        for number, layer in enumerate(self.plan):
            given = [values[name] for name in layer["of"]]
            if layer["kind"] == "concat":
                answer = torch.cat(given, dim=1)
            else:
                answer = getattr(self, "layer_{}".format(number))(given[0])
            if layer["relu"]:
                answer = getattr(self, "relu_{}".format(number))(answer)
            values[layer["name"]] = answer
        return values[self.answers[0]], values[self.answers[1]]


def _module(layer: dict[str, Any], arrays: dict[str, Any]) -> Any:
    """The torch module of a layer, with its weights; None for a concatenation."""
    kind, size = layer["kind"], layer["size"]
    if kind == "concat":
        return None
    if kind in ("max", "mean"):
        return (nn.MaxPool2d if kind == "max" else nn.AvgPool2d)(size)
    kernel, bias = arrays[layer["name"] + ".kernel"], arrays[layer["name"] + ".bias"]
    c_in, c_out = kernel.shape[2:]
    if kind == "conv":
        made: Any = nn.Conv2d(c_in, c_out, size, padding=size // 2)
        made.weight.data = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
    else:
        made = nn.ConvTranspose2d(c_in, c_out, size, stride=size)
        made.weight.data = torch.from_numpy(kernel.transpose(2, 3, 0, 1).copy())
    made.bias.data = torch.from_numpy(bias.copy())
    return made


def read_network(folder: Path) -> tuple[UYNet, dict[str, Any]]:
    """The network of a folder, and its header."""
    with np.load(str(folder / NETWORK)) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(arrays.pop("header").tobytes().decode())
    return UYNet(header, arrays).eval(), header


def images(crops: Any, header: dict[str, Any], device: Any) -> torch.Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) float32, as the farm's engines do it."""
    planes: torch.Tensor = torch.from_numpy(np.ascontiguousarray(crops.transpose(0, 3, 1, 2))).to(device).float()
    return planes * float(header["input_scale"]) + float(header["input_offset"])


def run(network: Any, crops: Any, header: dict[str, Any], device: Any, batch: int) -> list[tuple[Any, Any]]:
    """Every crop through the network: class logits and masks, packed bits, batch by batch."""
    answers = []
    with torch.no_grad():
        for start in range(0, len(crops), batch):
            classes, masks = network(images(crops[start : start + batch], header, device))
            said = (masks[:, 0] > header["mask_cut"]).cpu().numpy()
            answers.append((classes.flatten().double().cpu().numpy(), np.packbits(said, axis=-1)))
    return answers


def calibrate(folder: Path, device: Any, finetune: bool) -> None:
    """Choose fix points on the calibration crops, after fast fine-tuning if asked for."""
    network, header = read_network(folder)
    crops = np.load(str(folder / CALIBRATION))
    if not FEWEST <= len(crops) <= MOST:
        sys.exit("{} calibration crops, expected {} to {}: write this folder again".format(len(crops), FEWEST, MOST))
    result = folder / RESULT
    _remove(*(result / name for name in CALIBRATION_FILES))
    quantizer = _quantizer(
        "calib", network.to(device), images(crops[:CALIBRATION_BATCH], header, device), folder, device
    )
    given = (quantizer.quant_model, crops, header, device, CALIBRATION_BATCH)
    if finetune:
        quantizer.fast_finetune(run, given)
    run(*given)
    quantizer.export_quant_config()
    if not (result / INFO).exists():
        sys.exit("pytorch_nndct wrote no calibration into {}: see what it says above".format(result))
    (result / CALIBRATED_FOR).write_text(header["calibrated"])


def _remove(*stale: Path) -> None:
    for path in stale:
        if path.exists():
            path.unlink()


def test(folder: Path, device: Any, finetune: bool) -> None:
    """Write the xmodel and answer the held-out crops with the quantized network."""
    network, header = read_network(folder)
    _check_calibration(folder / RESULT, header["calibrated"], finetune)
    crops, xmodel = np.load(str(folder / HELD_OUT)), folder / RESULT / XMODEL
    _remove(folder / ANSWERS, xmodel)
    # The xmodel is exported of a network that last saw one crop; before the others, for it takes seconds and may fail.
    quantizer = _quantizer("test", network.to(device), images(crops[:1], header, device), folder, device)
    if finetune:
        quantizer.load_ft_param()
    run(quantizer.quant_model, crops[:1], header, device, 1)
    quantizer.export_xmodel(output_dir=str(folder / RESULT), deploy_check=False)
    if not xmodel.exists():
        sys.exit("pytorch_nndct exported no {}: see what it says above".format(xmodel))
    answers = run(quantizer.quant_model, crops, header, device, 1)
    logits, masks = (np.concatenate(parts) for parts in zip(*answers))
    sha256, tuned = np.array(header["sha256"]), np.array(finetune)
    np.savez(str(folder / ANSWERS), logits=logits, masks=masks, network=sha256, fast_finetuned=tuned)


def _check_calibration(result: Path, calibrated: str, finetune: bool) -> None:
    """End unless there is a calibration of this network on these crops, with or without fast fine-tuning as `finetune` says.

    pytorch_nndct does not ask for the first; of the second it ends without a remedy, or goes on with other numbers.
    """
    info, made_for = result / INFO, result / CALIBRATED_FOR
    if not info.exists() or not made_for.exists() or made_for.read_text() != calibrated:
        sys.exit("{} holds no calibration of this network on these crops: run --quant_mode calib first".format(result))
    tuned = bool(json.loads(info.read_text()).get("fast_finetuned"))
    if tuned != finetune:
        done, wanted = ("with", "with it") if tuned else ("without", "without it")
        sys.exit(
            "the calibration in {} was made {} --fast_finetune: run this {}, or calibrate again".format(
                result, done, wanted
            )
        )


def _quantizer(mode: str, network: UYNet, image: torch.Tensor, folder: Path, device: Any) -> Any:
    try:
        from pytorch_nndct.apis import torch_quantizer  # type: ignore[import-not-found]  # the vendor's, likewise
    except ImportError as error:
        sys.exit(
            "{} has no pytorch_nndct ({}): run this in the vendor's container, after `conda activate vitis-ai-pytorch`".format(
                sys.executable, error
            )
        )
    return torch_quantizer(mode, network, (image,), output_dir=str(folder / RESULT), bitwidth=8, device=device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quant_mode", "--quant-mode", choices=("calib", "test"), required=True)
    parser.add_argument("--device", required=True, help="cpu or cuda:N; nothing is chosen silently")
    parser.add_argument("--fast_finetune", "--fast-finetune", action="store_true", help="in both modes or in neither")
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parent)
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device is here: give --device cpu, or run where there is one")
    (calibrate if options.quant_mode == "calib" else test)(options.folder, device, options.fast_finetune)


if __name__ == "__main__":
    main()
