"""Stands in for the vendor's `xir`. Each behaviour mirrors a fact seen on the real one (3.5, built from its public source) or, of
compiled graphs, read there:

- `Graph.deserialize` of a missing or corrupt file aborts the process, the reason in the line before the last. An empty file, and any
  other whole protobuf message, is a graph without operators.
- `get_root_subgraph().toposort_child_subgraph()`; attributes `device`, `runner`, `dpu_name`, `dpu_fingerprint`.
- `get_attr` of an attribute that is not there aborts; `.children` and `.metadata` do not exist.
- A tensor has `name`, `dims`, `dtype` and attributes, `fix_point` among them; a subgraph gives its tensors as a set, dims[0] = 1.
- A quantized graph that was not compiled is a root without children, with `fix` operators in it: they have the fix points, and its
  tensors are float32 and have none.
"""

from __future__ import annotations

import os
import sys

import integer_network


def abort(why):
    """End as the vendor's checks do: three lines on stderr, then SIGABRT."""
    sys.stderr.write("WARNING: Logging before InitGoogleLogging() is written to STDERR\n")
    sys.stderr.write("F20230101 stand_in] Check failed: " + why + "\n*** Check failure stack trace: ***\n")
    sys.stderr.flush()
    os.abort()


class Attributes:
    def __init__(self, attributes):
        self._attributes = attributes

    def has_attr(self, name):
        return name in self._attributes

    def get_attr(self, name):
        if name not in self._attributes:
            abort("attribute " + name + " does not exist")
        return self._attributes[name]


class Tensor(Attributes):
    def __init__(self, name, dims, dtype, attributes):
        super().__init__(attributes)
        self.name, self.dims, self.dtype, self.ndim = name, list(dims), dtype, len(dims)


class Op:
    def __init__(self, kind):
        self._kind = kind

    def get_type(self):
        return self._kind


class Subgraph(Attributes):
    def __init__(self, name, attributes, children, network):
        super().__init__(attributes)
        self._name, self._children, self._network = name, children, network

    def toposort_child_subgraph(self):
        return list(self._children)

    def get_name(self):
        return self._name

    def get_ops(self):
        return {Op(kind) for kind in self._attributes.get("operators", ["conv2d-fix"])}

    def get_input_tensors(self):
        header = self._network[0]
        return {tensor(header["input_name"], header["input_dims"], header["input_fix_point"], header)}

    def get_output_tensors(self):
        header = self._network[0]
        return {tensor(one["name"], one["dims"], one["fix_point"], header) for one in header["outputs"]}


def tensor(name, dims, fix_point, header):
    attributes = {} if fix_point is None else {"fix_point": fix_point}
    return Tensor(name, [1, *dims], header.get("dtype", "xint8"), attributes)


class Graph:
    #: runners that live on a graph; a graph freed before them aborts
    def __init__(self, header, weights):
        self._users, self._header = [], header
        network = (header, weights, self._users)
        children = [Subgraph("subgraph_" + one["device"], one, [], network) for one in header["subgraphs"]]
        self._root = Subgraph("root", {}, children, network)

    @staticmethod
    def deserialize(path):
        try:
            header, weights = integer_network.load(path)
        except Exception as error:  # noqa: BLE001 -- whatever is wrong with the file aborts
            abort("cannot parse " + str(path) + ": " + str(error))
        return Graph(header, weights)

    def get_root_subgraph(self):
        return self._root

    def get_ops(self):
        return {Op(kind) for kind in self._header.get("operators", ["data-fix", "conv2d-fix"])}

    def __del__(self):
        # At the interpreter's end nothing keeps an order.
        if getattr(self, "_users", None) and not sys.is_finalizing():
            abort("the graph was freed before its runner")
