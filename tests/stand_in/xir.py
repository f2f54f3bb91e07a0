"""Stands in for the vendor's `xir`. Each behaviour mirrors a fact that was read in the vendor's sources:

- `Graph.deserialize` of a missing or corrupt file aborts the process.
- `get_root_subgraph().toposort_child_subgraph()`; attributes `device`, `runner`, `dpu_name`, `dpu_fingerprint`.
- `get_attr` of an attribute that is not there aborts; `.children` and `.metadata` do not exist.
- A tensor has `name`, `dims`, `dtype` and attributes, `fix_point` among them.
"""

from __future__ import annotations

import os
import sys

import integer_network


def abort(why):
    """End as the vendor's checks do: a line on stderr, then SIGABRT."""
    sys.stderr.write("F0101 stand_in] Check failed: " + why + "\n")
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


class Subgraph(Attributes):
    def __init__(self, attributes, children, network):
        super().__init__(attributes)
        self._children, self._network = children, network

    def toposort_child_subgraph(self):
        return list(self._children)


class Graph:
    #: runners that live on a graph; a graph freed before them aborts
    def __init__(self, header, weights):
        self._users = []
        network = (header, weights, self._users)
        children = [Subgraph(attributes, [], network) for attributes in header["subgraphs"]]
        self._root = Subgraph({"device": "USER"}, children, network)

    @staticmethod
    def deserialize(path):
        try:
            header, weights = integer_network.load(path)
        except Exception as error:  # noqa: BLE001 -- whatever is wrong with the file aborts
            abort("cannot parse " + str(path) + ": " + str(error))
        return Graph(header, weights)

    def get_root_subgraph(self):
        return self._root

    def __del__(self):
        # At the interpreter's end nothing keeps an order.
        if getattr(self, "_users", None) and not sys.is_finalizing():
            abort("the graph was freed before its runner")
