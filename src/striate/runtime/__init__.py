"""Programs run here: the thread team, loaded code, executables and their profile."""

from striate.runtime.cores import default_threads
from striate.runtime.executable import Executable
from striate.runtime.execute import execute

__all__ = ["Executable", "default_threads", "execute"]
