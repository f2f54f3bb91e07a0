"""The card's own process, without the process: that Python 3.8 can run it, and what it checks before a vendor call."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from card_stand_in import FOLDER

from workers.engines import vart_card
from workers.engines.vart_card import (
    Refused,
    check_arrays,
    check_device,
    check_fingerprint,
    check_tensors,
    dpu_subgraph,
)

CHILD_FILES = [Path(vart_card.__file__), *sorted(FOLDER.glob("*.py"))]
"""What the vendor's interpreter runs: the card's process, and the stand-in in its tests."""

NEWER_THAN_3_8 = {
    "removeprefix", "removesuffix", "cache", "pairwise", "batched", "is_relative_to", "with_stem", "readlink", "hardlink_to", "walk",
    "lcm", "nextafter", "bit_count", "randbytes", "TopologicalSorter", "zoneinfo", "to_thread", "add_note", "ExceptionGroup", "tomllib",
    "file_digest", "orig_argv", "stdlib_module_names", "waitstatus_to_exitcode", "pidfd_open", "anext", "aiter", "chdir", "StrEnum",
}  # fmt: skip
"""Names that later standard libraries added and that code like this would use."""
NEWER_KEYWORDS = {"strict", "slots", "kw_only", "cancel_futures", "usedforsecurity"}
ALLOWED = {"numpy", "vart", "xir", "integer_network"}


class Attributes:
    def __init__(self, **attributes: object) -> None:
        self._attributes = attributes

    def has_attr(self, name: str) -> bool:
        return name in self._attributes

    def get_attr(self, name: str) -> object:
        assert name in self._attributes, f"asking for {name} would abort"
        return self._attributes[name]


def tensor(name: str, dims: list[int], dtype: str = "xint8", **attributes: object):
    made = Attributes(**{"fix_point": 5, **attributes})
    made.name, made.dims, made.dtype = name, dims, dtype
    return made


INPUT = tensor("crops", [8, 224, 224, 3])
CLASS = tensor("class", [8, 1, 1, 1])
MASK = tensor("mask", [8, 224, 224, 1])
ORDER = {"side": 224, "class_output": "class", "mask_output": "mask"}


@pytest.mark.parametrize("path", CHILD_FILES, ids=lambda path: path.name)
def test_the_vendors_python_can_parse_and_run_it(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {
        alias.name for node in ast.walk(tree) if isinstance(node, (ast.ImportFrom, ast.Import)) for alias in node.names
    }
    keywords = {keyword.arg for node in ast.walk(tree) if isinstance(node, ast.Call) for keyword in node.keywords}
    assert not names & NEWER_THAN_3_8
    assert not keywords & NEWER_KEYWORDS
    imports_annotations = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
    assert imports_annotations, "annotations like `int | None` must never be evaluated there"
    assert not any(isinstance(node, ast.Match) for node in ast.walk(tree))


@pytest.mark.parametrize("path", CHILD_FILES, ids=lambda path: path.name)
def test_it_imports_numpy_the_vendors_modules_and_the_standard_library_alone(path: Path) -> None:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).split(".")[0])
    assert found - ALLOWED <= sys.stdlib_module_names


def test_parsing_for_3_8_would_see_newer_syntax() -> None:
    with pytest.raises(SyntaxError):
        ast.parse("match x:\n    case 1:\n        pass", feature_version=(3, 8))


@pytest.mark.parametrize("outputs", [[CLASS, MASK], [MASK, CLASS]], ids=["class first", "mask first"])
@pytest.mark.parametrize("names", [("class", "mask"), ("other", "names")], ids=["by name", "by shape"])
def test_outputs_are_found_in_any_order(outputs: list, names: tuple[str, str]) -> None:
    order = {"side": 224, "class_output": names[0], "mask_output": names[1]}
    assert check_tensors([INPUT], outputs, order) == (INPUT, CLASS, MASK)


@pytest.mark.parametrize(
    ("inputs", "outputs", "why"),
    [
        ([INPUT], [CLASS], "1 inputs and 1 outputs"),
        ([INPUT, INPUT], [CLASS, MASK], "2 inputs and 2 outputs"),
        ([INPUT], [CLASS, CLASS], "expected an input"),
        ([INPUT], [CLASS, tensor("mask", [8, 112, 112, 1])], r"mask xint8 \[8, 112, 112, 1\]"),
        ([tensor("crops", [8, 3, 224, 224])], [CLASS, MASK], r"crops xint8 \[8, 3, 224, 224\]"),
        ([tensor("crops", [8, 224, 224, 3], "xfloat32")], [CLASS, MASK], "crops is xfloat32, expected int8: quantize"),
    ],
    ids=["one output", "two inputs", "two class outputs", "small mask", "channels first", "float"],
)
def test_another_networks_tensors_are_refused_with_what_they_are(inputs: list, outputs: list, why: str) -> None:
    with pytest.raises(Refused, match=why) as refused:
        check_tensors(inputs, outputs, ORDER)
    assert refused.value.kind == "model"


def test_a_tensor_without_a_fix_point_is_refused_and_not_asked_for_it() -> None:
    bare = Attributes()
    bare.name, bare.dims, bare.dtype = "mask", MASK.dims, "xint8"
    with pytest.raises(Refused, match="mask has no fix_point"):
        check_tensors([INPUT], [CLASS, bare], ORDER)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 224, 224, 1), np.uint8),
        np.zeros((8, 224, 224, 1), np.float64),
        np.zeros((4, 224, 224, 1), np.int8),
        np.zeros((8, 224, 448, 1), np.int8)[:, :, ::2],
        np.frombuffer(bytes(8 * 224 * 224), np.int8).reshape(8, 224, 224, 1),
    ],
    ids=["uint8", "float64", "too small", "with gaps", "read-only"],
)
def test_an_array_that_the_runtime_would_abort_on_or_misread_is_refused(array: np.ndarray) -> None:
    with pytest.raises(Refused, match="does not fit tensor mask"):
        check_arrays([MASK], [array])


def graph(*children: Attributes) -> SimpleNamespace:
    root = SimpleNamespace(toposort_child_subgraph=lambda: list(children))
    return SimpleNamespace(get_root_subgraph=lambda: root)


def test_the_one_dpu_subgraph_is_taken_and_others_are_told() -> None:
    dpu, host = Attributes(device="DPU", runner={"run": "lib.so"}), Attributes(device="CPU")
    assert dpu_subgraph(graph(Attributes(), host, dpu)) is dpu
    with pytest.raises(Refused, match=r"no DPU subgraph.*float model.*vai_c_xir"):
        dpu_subgraph(graph(host))
    with pytest.raises(Refused, match="2 DPU subgraphs, expected one"):
        dpu_subgraph(graph(dpu, host, dpu))
    with pytest.raises(Refused, match="no runner for mode 'run'"):
        dpu_subgraph(graph(Attributes(device="DPU")))


def test_a_fingerprint_is_checked_where_the_model_card_gives_one() -> None:
    assert check_fingerprint(Attributes(dpu_fingerprint=0x501), None) == 0x501
    assert check_fingerprint(Attributes(), None) is None
    for subgraph in (Attributes(dpu_fingerprint=0x502), Attributes()):
        with pytest.raises(Refused, match="its model card says 0x501"):
            check_fingerprint(subgraph, 0x501)


def test_the_card_opened_is_the_card_asked_for_where_the_runtime_tells() -> None:
    assert check_device(tensor("crops", [], __device_id__=2), 2) == 2
    assert check_device(tensor("crops", []), 2) is None
    assert check_device(tensor("crops", [], __device_id__=2), None) == 2
    with pytest.raises(Refused, match=r"opened card 0 instead of 2.*XRM"):
        check_device(tensor("crops", [], __device_id__=0), 2)
