"""How often a network is right: images with known classes, and what it takes them for."""

from striate.evaluation.result import ClassResult, Confusion, Evaluation, Outcome, Share
from striate.evaluation.run import evaluate

__all__ = ["ClassResult", "Confusion", "Evaluation", "Outcome", "Share", "evaluate"]
