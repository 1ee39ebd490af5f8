"""Peers of the benchmarks: environments and processes of their own.

Most peers need older packages than this project, so each gets an environment (`.benchmark-envs/`, made when missing).
A process that is asked for one turn at a time lets two sides alternate without loading anything anew.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

ENVIRONMENTS: Final = Path(__file__).resolve().parent.parent / ".benchmark-envs"
ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

#: A line to a process, and its answer.
Ask = Callable[[str], str]


def python_of(peer: str, packages: Sequence[str], environments: Path = ENVIRONMENTS) -> Path:
    """The Python of a peer's environment, made with the packages if it is not there."""
    folder = environments / peer
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists():
        print(f"making {folder} ...", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        ready.touch()
    return python


@contextmanager
def asking(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Iterator[Ask]:
    """A process that answers every line it is given with a line, once it has said that it is ready.

    Args:
        command: The program and its arguments.
        environment: Variables added to this process's.
    """
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env={**os.environ, **(environment or {})}, **pipes) as process:

        def ask(line: str) -> str:
            with suppress(BrokenPipeError):
                process.stdin.write(line + "\n")
                process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                raise SystemExit(f"{command[0]} ended; its own message is above")
            return answer.strip()

        if process.stdout.readline() != "ready\n":
            raise SystemExit(f"{command[0]} did not start; its own message is above")
        try:
            yield ask
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
