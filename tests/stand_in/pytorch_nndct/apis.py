"""Stands in for the vendor's `pytorch_nndct.apis`. Each behaviour mirrors a fact seen on the real one (3.5, built from its public source
with torch 2.13, on a processor):

- `torch_quantizer(quant_mode, module, input_args, output_dir=, bitwidth=, device=)`; the device is a torch.device, cuda unless another
  is given, and without CUDA a warning and the processor. Another mode than test calibrates.
- All it says goes to stderr, errors too; most of them change nothing else.
- `quant_model` is another module than the one given, wrapped anew each time; exporting before it ran once prints an error and writes
  nothing.
- calib: weights, biases and activations get fix points; `export_quant_config` writes `quant_info.json` and the corrected biases,
  without which test mode ends the process with status 2. `fast_finetune(fn, args)` calls `fn(*args)` twice with gradients as `fn`
  wants them and writes `param.pth`; `load_ft_param` reads it, in test mode alone, and ends the process with status 2 where the
  calibration was none with fine-tuning. The other way round, fine-tuned and not loaded, it goes on with other numbers.
- test: `export_xmodel(output_dir, deploy_check)` writes CLASS_int.xmodel, and may stand before the answers: they are the same. Of a
  network that last saw another batch than 1 it prints an error and writes it all the same.

What is **not** mirrored: features are quantized at the outputs alone, biases not corrected and weights not equalized, fine-tuning
changes no number, loaded or not; the xmodel is a container of the stand-in with the known network in it, not the network that was given.
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
    peak = float(values.detach().abs().max())
    return 12 if peak == 0 else min(12, int(np.floor(np.log2(127.5 / peak))))


class Quantized(torch.nn.Module):
    def __init__(self, module, quantizer):
        super().__init__()
        self.inner, self._quantizer = [copy.deepcopy(module)], quantizer
        for parameter in self.inner[0].parameters():
            parameter.data = fake_quantized(parameter.data, fix_point_of(parameter.data))

    def forward(self, image):
        return self._quantizer.see(image, self.inner[0](image))


class Recovery(torch.nn.Module):
    """What is handed out of a quantized module."""

    def __init__(self, inner):
        super().__init__()
        self.inner_model = inner

    def forward(self, image):
        return self.inner_model(image)


def say(code, words):
    sys.stderr.write("[VAIQ_" + code + "]: " + words + "\n")


class torch_quantizer:  # noqa: N801 - the vendor's name
    def __init__(
        self,
        quant_mode,
        module,
        input_args=None,
        output_dir="quantize_result",
        bitwidth=None,
        device=torch.device("cuda"),
    ):
        if device.type == "cuda" and not torch.cuda.is_available():
            say("WARN][QUANTIZER_TORCH_CUDA_UNAVAILABLE", "CUDA (HIP) is not available, change device to CPU")
        self._test = quant_mode == "test"
        self._out, self._name = Path(output_dir), type(module).__name__
        self._out.mkdir(parents=True, exist_ok=True)
        self._seen, self._fix_points, self._fast_finetuned = 0, None, False
        if self._test:
            if not (self._out / "bias_corr.pth").exists():
                say("ERROR][QUANTIZER_TORCH_BIAS_CORRECTION", "Bias correction result file does not exist.")
                sys.exit(2)
            info = json.loads((self._out / "quant_info.json").read_text())
            self._fix_points = [pairs[0][1] for pairs in info["output"].values()]
            self._fast_finetuned = info["fast_finetuned"]
        self._model = Quantized(module, self)
        self._model(*input_args)  # the graph is parsed by a run of its own
        self._seen = 0
        (self._out / (self._name + ".py")).write_text("# the network as the quantizer parsed it\n")

    @property
    def quant_model(self):
        return Recovery(self._model)

    def see(self, image, answers):
        self._seen = int(image.shape[0])
        if not self._test:
            self._fix_points = [fix_point_of(answer) for answer in answers]
            return answers
        return tuple(fake_quantized(answer, fix) for answer, fix in zip(answers, self._fix_points))  # noqa: B905 -- 3.8

    def fast_finetune(self, run_fn, run_args):
        if self._test:
            say("WARN][QUANTIZER_TORCH_FINETUNE_IGNORED", "Finetune function will be ignored in test mode!")
            return
        run_fn(*run_args)
        run_fn(*run_args)
        torch.save({}, self._out / "param.pth")
        self._fast_finetuned = True

    def load_ft_param(self):
        if self._test:
            if not self._fast_finetuned or not (self._out / "param.pth").exists():
                say("ERROR][QUANTIZER_TORCH_FAST_FINETINE", "Fast finetuned parameter file does not exist.")
                sys.exit(2)
            torch.load(self._out / "param.pth")

    def export_quant_config(self):
        if not self._seen:
            say("ERROR][QUANTIZER_TORCH_NO_CALIBRATION", "Quantization is not performed completely")
            return
        torch.save({}, self._out / "bias_corr.pth")
        names = (f"nndct_conv2d_{number}" for number in range(len(self._fix_points)))
        outputs = {self._name + "::" + name: [[8, fix]] for name, fix in zip(names, self._fix_points)}  # noqa: B905 -- 3.8
        told = {"param": {}, "output": outputs, "input": {}}
        told.update(fast_finetuned=self._fast_finetuned, bias_corrected=True, version="stand-in")
        (self._out / "quant_info.json").write_text(json.dumps(told))

    def export_xmodel(self, output_dir="quantize_result", deploy_check=False):
        if not self._seen:
            say("ERROR][QUANTIZER_TORCH_NO_FORWARD", "FORWARD function must be called before exporting")
            return
        if self._seen != 1:
            say("ERROR][QUANTIZER_TORCH_XMODEL_BATCHSIZE", "Batch size must be 1 when exporting xmodel.")
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
        "subgraphs": [],
        "operators": ["data", "const", "fix", "conv2d", "avgpool2d", "mul"],
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
