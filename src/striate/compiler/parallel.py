"""Kernels compiled side by side: LLVM does one thing at a time in a process, so others help.

A helper is a fresh Python that reads kernels from a pipe and writes object code to another. It is
started when enough kernels wait to be worth its start, and used for nothing else; where there can
be none (no spare core, no interpreter to start) everything is compiled here.
"""

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO

from striate.compiler.codegen import object_code
from striate.compiler.target import Target

MOST_HELPERS = 3
# A helper takes 0.2 s to start, a kernel about 10 ms to compile.
FEWEST_WAITING = 12
_LENGTH_BYTES = 8
# More than any kernel: who sends it does not speak our language.
_MOST_BYTES = 1 << 28

_COMMAND = "from striate.compiler.parallel import serve; serve()"


@dataclass(slots=True)
class Compilers:
    """Object code for `target`: `add` kernels, then `finish`. Use as a context."""

    target: Target
    helpers: int = field(default_factory=lambda: min(MOST_HELPERS, _cores() - 1))
    _waiting: deque[tuple[str, Callable[[], str]]] = field(default_factory=deque)
    _done: dict[str, bytes] = field(default_factory=dict)
    _threads: list[threading.Thread] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _complete: bool = False

    def __enter__(self) -> "Compilers":
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._waiting.clear()
            self._complete = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def add(self, name: str, write: Callable[[], str]) -> None:
        """A kernel to compile, whose IR `write` writes."""
        with self._changed:
            self._waiting.append((name, write))
            self._changed.notify()
            wanted = len(self._waiting) // FEWEST_WAITING
        if len(self._threads) < min(self.helpers, wanted):
            self._threads.append(threading.Thread(target=self._help, daemon=True))
            self._threads[-1].start()

    def finish(self) -> dict[str, bytes]:
        """The object code of every kernel by its name; this process helps, too."""
        with self._changed:
            self._complete = True
            self._changed.notify_all()
        while (job := self._next()) is not None:
            self._done[job[0]] = object_code(job[1](), self.target)
        for thread in self._threads:
            thread.join()
        # What a helper could not do it has given back.
        while (job := self._next()) is not None:
            self._done[job[0]] = object_code(job[1](), self.target)
        return self._done

    def _next(self) -> tuple[str, Callable[[], str]] | None:
        with self._changed:
            while not self._waiting and not self._complete:
                self._changed.wait()
            return self._waiting.popleft() if self._waiting else None

    def _help(self) -> None:
        """Pass kernels to a helper as long as there are some, and it answers."""
        try:
            helper = _start()
        except (OSError, ValueError):
            return
        assert helper.stdin is not None and helper.stdout is not None
        try:
            while (job := self._next()) is not None:
                try:
                    _send(helper.stdin, pickle.dumps((job[1](), self.target)))
                    self._done[job[0]] = _receive(helper.stdout)
                except (OSError, EOFError):
                    with self._changed:
                        self._waiting.appendleft(job)
                    return
        finally:
            for pipe in (helper.stdin, helper.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()
            helper.wait()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start() -> "subprocess.Popen[bytes]":
    if not sys.executable:
        raise OSError("there is no interpreter to start")
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-c", _COMMAND],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": paths},
    )


def serve() -> None:
    """A helper: compile what standard input holds, until its end."""
    given, answers = sys.stdin.buffer, sys.stdout.buffer
    with contextlib.suppress(EOFError, KeyboardInterrupt, BrokenPipeError):
        while True:
            ir, target = pickle.loads(_receive(given))
            _send(answers, object_code(ir, target))


def _send(pipe: IO[bytes], content: bytes) -> None:
    pipe.write(len(content).to_bytes(_LENGTH_BYTES, "little") + content)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    size = int.from_bytes(_exactly(pipe, _LENGTH_BYTES), "little")
    if size > _MOST_BYTES:
        raise EOFError
    return _exactly(pipe, size)


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    content = pipe.read(size)
    if len(content) != size:
        raise EOFError
    return content
