"""Uploads that are kept and pushed by processes that kill themselves at each step; prints what became of them.

Every run is a process of its own, forked from this one. It counts what is asked of the operating system, and the posts
(before and after each), and kills itself with SIGKILL before the n-th; a write is cut in half first.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from lensai_integrations.edge import publishing, sending, spool
from lensai_integrations.edge.sending import Upload, archive
from lensai_integrations.storage import folders, posting

COUNTED = ("open", "write", "fsync", "close", "replace", "unlink", "fstat")


class Killing:
    """`os`, whose n-th counted call kills the process."""

    def __init__(self, at: int) -> None:
        self.left = at

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def __getattr__(self, name):
        def call(*args, **kwargs):
            if name == "write" and self.left == 1:
                os.write(args[0], bytes(args[1])[: len(args[1]) // 2])
            self.step()
            return getattr(os, name)(*args, **kwargs)

        return call if name in COUNTED else getattr(os, name)


def killed(at: int, work: Callable[[], object]) -> bool:
    """Work in a process that is killed at a step; whether it was."""
    child = os.fork()
    if not child:
        killing = Killing(at)
        folders.os = spool.os = killing

        def post(*args):
            killing.step()
            answer = posting.post(*args)
            killing.step()
            return answer

        sending.post = post
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or status == 0, "it raised"
    return os.WIFSIGNALED(status)


def upload(url: str, sensor: str, when: int) -> Upload:
    return Upload(url, sensor, when, archive({"imgstats/noise.bin": os.urandom(3000)}, when))


def main(folder: Path, url: str) -> None:
    kept, damaged, at = [], 0, 1
    one = upload(url, "kept", 1)
    while killed(at, partial(spool.keep, own := folder / f"kept-{at}", one, 2**28)):
        kept.append([path.name for path in spool.waiting(own)])
        damaged += sum(spool.read_upload(path) != one for path in spool.waiting(own))
        spool.keep(own, one, 2**28)
        damaged += len(spool.waiting(own)) != 1
        at += 1
    kills = left = 0
    while True:
        own = folder / f"push-{kills + 1}"
        for when in (1, 2):
            spool.keep(own, upload(url, own.name, when), 2**28)
        if not killed(kills + 1, partial(publishing.deliver, own)):
            break
        kills += 1
        done = publishing.deliver(own)
        left += len(spool.waiting(own)) + len(done.problems)
    print(json.dumps({"kept": kept, "damaged": damaged, "kills": kills, "left": left}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
