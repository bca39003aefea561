"""A network as a graph of equations."""

from striate.network.graph import Computed, Concatenated, Derived, Graph, Input, Node, Parameter

__all__ = ["Computed", "Concatenated", "Derived", "Graph", "Input", "Node", "Parameter"]
