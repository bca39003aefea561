"""A lock that a forked child finds open, whoever held it in the parent."""

import os
import threading
import weakref
from types import TracebackType


class Mutex:
    """Like `threading.Lock`; after `os.fork` the child's copy is new and open.

    `with mutex.lock` is the same as `with mutex`, and sooner done: it calls no Python.

    In the child only the thread that forked goes on, so a lock that another thread held at that
    moment would stay closed for ever.
    """

    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        _mutexes.add(self)

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.lock.release()

    def open_in_child(self) -> None:
        """Forget who held the lock."""
        self.lock = threading.Lock()


_mutexes: weakref.WeakSet[Mutex] = weakref.WeakSet()


def _open_all() -> None:
    for mutex in list(_mutexes):
        mutex.open_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open_all)
