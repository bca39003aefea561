"""Convolutional networks as equations, compiled to machine code."""

__version__ = "0.1.0"
