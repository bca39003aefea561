"""The one error of this folder."""


class WeightsError(ValueError):
    """A weight file that cannot be used: which file, what is wrong with it, and what to do."""
