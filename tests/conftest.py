"""Settings of the whole suite."""

import os
from pathlib import Path

# Compiled code of the tests stays out of the user's cache, and is there at their next run.
os.environ.setdefault("STRIATE_CACHE", str(Path(__file__).parents[1] / ".pytest_cache" / "striate"))
