"""Settings of the whole suite."""

import os
from pathlib import Path

# Compiled code of the tests stays out of the user's cache, and is there at their next run.
# The tests run side by side already.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("STRIATE_CACHE", str(Path(__file__).parents[1] / ".pytest_cache" / "striate"))
