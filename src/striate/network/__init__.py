"""A network as a graph of equations."""

from striate.network.graph import Computed, Concatenated, Graph, Input, Node, Parameter

__all__ = ["Computed", "Concatenated", "Graph", "Input", "Node", "Parameter"]
