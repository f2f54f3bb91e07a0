"""Stands in for the vendor's `pytorch_nndct.apis`. Each behaviour mirrors a fact that was read in the vendor's sources (Vitis AI 3.5):

- `torch_quantizer(quant_mode, module, input_args, output_dir=, bitwidth=, device=)`; the device is cuda unless another is given.
- `quant_model` is another module than the one given; exporting before it ran once prints an error and writes nothing.
- calib: weights and activations get power-of-two scales; `export_quant_config` writes `quant_info.json` and the corrected biases,
  without which test mode ends the process with status 2. `fast_finetune(fn, args)` calls `fn(*args)` and writes `param.pth`;
  `load_ft_param` reads it, in test mode alone.
- test: `export_xmodel(output_dir, deploy_check)` of a network that last saw a batch of 1 writes CLASS_int.xmodel.

What is **not** mirrored: features are quantized at the outputs alone, biases not corrected and weights not equalized; the xmodel is
a container of the stand-in with the known network in it, not the network that was given.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import integer_network
import numpy as np
import torch


def fake_quantized(values, fix_point):
    scaled = values * 2.0**fix_point
    rounded = torch.sign(scaled) * torch.floor(scaled.abs() + 0.5)
    return rounded.clamp(-128, 127) * 2.0**-fix_point


def fix_point_of(values):
    peak = float(values.abs().max())
    return 12 if peak == 0 else min(12, int(np.floor(np.log2(127.5 / peak))))


class Quantized(torch.nn.Module):
    def __init__(self, module, quantizer):
        super().__init__()
        self.inner, self._quantizer = [copy.deepcopy(module)], quantizer
        for parameter in self.inner[0].parameters():
            parameter.data = fake_quantized(parameter.data, fix_point_of(parameter.data))

    def forward(self, image):
        return self._quantizer.see(image, self.inner[0](image))


class torch_quantizer:  # noqa: N801 - the vendor's name
    def __init__(self, quant_mode, module, input_args=None, output_dir="quantize_result", bitwidth=None, device=None):
        if device is None or torch.device(device).type == "cuda":
            raise AssertionError("Torch not compiled with CUDA enabled")
        if quant_mode not in ("calib", "test") or bitwidth not in (None, 8):
            raise ValueError("quant_mode is calib or test, bitwidth 8")
        self._mode, self._out, self._name = quant_mode, Path(output_dir), type(module).__name__
        self._out.mkdir(parents=True, exist_ok=True)
        self._seen, self._fix_points = 0, None
        if quant_mode == "test":
            if not (self._out / "bias_corr.pth").exists():
                sys.stderr.write(
                    "[VAIQ_ERROR][QUANTIZER_TORCH_BIAS_CORRECTION]: Bias correction result file does not exist.\n"
                )
                sys.exit(2)
            self._fix_points = json.loads((self._out / "quant_info.json").read_text())["output"]
        self.quant_model = Quantized(module, self)
        self.quant_model(*input_args)  # the graph is parsed by a run of its own
        self._seen = 0

    def see(self, image, answers):
        self._seen = int(image.shape[0])
        if self._mode == "calib":
            self._fix_points = [fix_point_of(answer) for answer in answers]
            return answers
        return tuple(fake_quantized(answer, fix) for answer, fix in zip(answers, self._fix_points))  # noqa: B905 -- 3.8

    def fast_finetune(self, run_fn, run_args):
        run_fn(*run_args)
        torch.save({}, self._out / "param.pth")

    def load_ft_param(self):
        if self._mode == "test":
            torch.load(self._out / "param.pth")

    def export_quant_config(self):
        if not self._seen:
            sys.stderr.write("[VAIQ_ERROR][QUANTIZER_TORCH_NO_CALIBRATION]: Quantization is not performed completely\n")
            return
        torch.save({}, self._out / "bias_corr.pth")
        (self._out / "quant_info.json").write_text(json.dumps({"output": self._fix_points}))

    def export_xmodel(self, output_dir="quantize_result", deploy_check=False):
        if not self._seen:
            sys.stderr.write(
                "[VAIQ_ERROR][QUANTIZER_TORCH_NO_FORWARD]: FORWARD function must be called before exporting\n"
            )
            return
        if self._seen != 1:
            raise ValueError("the xmodel is exported with batch 1")
        integer_network.save(Path(output_dir) / (self._name + "_int.xmodel"), quantized_header(), known_weights())


def quantized_header():
    """An exported network that was not compiled: its class logit is grey, its mask logit red."""
    side = 224
    layers = [
        {"kind": "mean", "name": "mean_32", "of": ["input"], "size": 32, "fix_point": 6},
        {"kind": "mean", "name": "mean_224", "of": ["mean_32"], "size": 7, "fix_point": 6, "factor": 21, "shift": 10},
        {"kind": "conv", "name": "class_fix", "of": ["mean_224"], "weight_fix_point": 5, "fix_point": 5},
        {"kind": "conv", "name": "mask_fix", "of": ["input"], "weight_fix_point": 5, "fix_point": 4},
    ]
    return {
        "subgraphs": [{"device": "USER"}],
        "operators": ["data", "fix", "conv2d", "avgpool2d"],
        "input_name": "UYNet__input_0_fix",
        "input_dims": [side, side, 3],
        "input_fix_point": 6,
        "outputs": [
            {"name": "class_fix", "dims": [1, 1, 1], "fix_point": 5},
            {"name": "mask_fix", "dims": [side, side, 1], "fix_point": 4},
        ],
        "layers": layers,
    }


def known_weights():
    mean, red = np.full((1, 1, 3, 1), 11, np.int8), np.zeros((1, 1, 3, 1), np.int8)
    red[0, 0, 0] = 32
    zero = np.zeros(1, np.int32)
    return {"class_fix.kernel": mean, "class_fix.bias": zero, "mask_fix.kernel": red, "mask_fix.bias": zero}
