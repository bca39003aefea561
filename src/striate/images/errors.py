"""The errors of this folder."""


class ImageError(ValueError):
    """An image that cannot be used: which one, what is wrong with it, and what to do."""


class UnknownClassError(ValueError):
    """A class that is not among ImageNet's, with those that were perhaps meant."""
