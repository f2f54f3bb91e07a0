"""Prints what an xmodel holds as one line of JSON, read by the vendor's `xir`. Judges nothing.

    python describe_xmodel.py FILE [FOLDER ...]      FOLDERs go on the module path

XIR aborts on a file that is no xmodel and on an attribute that is not there, so the caller takes this process's death as an answer.
"""

from __future__ import annotations

import json
import sys
from typing import Any

QUANTIZING = ("fix", "fix2float", "float2fix")
"""Operators that a quantized graph has and a float one lacks."""


def attribute(owner: Any, name: str) -> Any:
    """The attribute, or None: asking XIR for one that is not there aborts."""
    return owner.get_attr(name) if owner.has_attr(name) else None


def tensor(one: Any) -> dict[str, Any]:
    return {
        "name": str(one.name),
        "dims": [int(size) for size in one.dims],
        "dtype": str(one.dtype),
        "fix_point": attribute(one, "fix_point"),
    }


def subgraph(one: Any) -> dict[str, Any]:
    described = {key: attribute(one, key) for key in ("device", "dpu_name", "dpu_fingerprint")}
    described["name"] = str(one.get_name())
    described["operators"] = sorted({str(op.get_type()) for op in one.get_ops()})
    described["inputs"] = [tensor(each) for each in one.get_input_tensors()]
    described["outputs"] = [tensor(each) for each in one.get_output_tensors()]
    return described


def main() -> None:
    sys.path[:0] = sys.argv[2:]
    try:
        import xir  # type: ignore[import-not-found]  # the vendor's, in its own environment alone
    except ImportError as error:
        sys.exit("no xir: {}".format(error))
    graph = xir.Graph.deserialize(sys.argv[1])
    children = graph.get_root_subgraph().toposort_child_subgraph()
    kinds = [str(op.get_type()) for op in graph.get_ops()]
    told = {
        "quantizing_operators": sum(kind in QUANTIZING for kind in kinds),
        "operators": len(kinds),
        "subgraphs": [subgraph(child) for child in children],
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
