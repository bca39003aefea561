"""Convolutional networks as equations, compiled to machine code."""
