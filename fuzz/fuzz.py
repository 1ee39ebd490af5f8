"""Mutants of everything that comes from outside: refused with an error of this package, or as good as what it makes.

    python fuzz/fuzz.py [--seconds 600] [--seed N] [--only distinct|frequent|quantiles|profile|upload] [--plain]
    python fuzz/fuzz.py --replay fuzz/found/...

Atheris guides the mutants by what they reach; where it cannot be had, or with --plain, they are drawn blindly. What is
admitted is handed to DataSketches' C++ in children, so that damaged memory ends a child and the input is kept, in
fuzz/found. Exit status 1 if one was found. The same seed gives the same mutants, as far as time allows.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import resource
import secrets
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random
from typing import NoReturn

FOUND = Path(__file__).resolve().parent / "found"
#: Inputs that one child is given.
BATCH = 20
#: Seconds that one batch may take, and bytes beyond those there are.
TIME, MEMORY = 20, 2 * 2**30

try:
    import atheris
except ImportError:
    atheris = None

PREPARED = atheris.instrument_imports(include=["lensai_integrations"]) if atheris and __name__ == "__main__" else None

with contextlib.redirect_stderr(io.StringIO()), PREPARED or contextlib.nullcontext():  # it names all modules
    import targets

from lensai_integrations.errors import LensAIError  # noqa: E402

NAMES = sorted(targets.TARGETS)


class FoundError(Exception):
    """An input for which something does not hold."""


class Run:
    """What was run so far, and what waits for a child.

    An input is a byte that says of which target, and what that target reads.
    """

    def __init__(self, only: str | None = None) -> None:
        self.only = only
        self.counts: Counter[str] = Counter()
        self._waiting: list[bytes] = []

    def seeds(self) -> list[bytes]:
        """Good inputs of all targets."""
        return [
            bytes([number]) + seed
            for number, name in enumerate(NAMES)
            if self.only in (None, name)
            for seed in targets.TARGETS[name].seeds()
        ]

    def mutant(self, data: bytes, rng: Random) -> bytes:
        """An input with up to three things wrong."""
        number, payload = (data[0] % len(NAMES), data[1:]) if data else (0, b"")
        if not data or rng.random() < 0.3 or self.only not in (None, NAMES[number]):  # no target is left behind
            number = NAMES.index(self.only or rng.choice(NAMES))
            payload = rng.choice(targets.TARGETS[NAMES[number]].seeds())
        for _ in range(rng.choice([1, 1, 2, 3])):
            payload = targets.TARGETS[NAMES[number]].mutated(payload, rng)
        return bytes([number]) + payload

    def one(self, data: bytes) -> None:
        """Refuse it, or let it wait for a child.

        Raises:
            FoundError: If it is refused with another error, or what waited does not hold.
        """
        if not data:  # atheris begins with it
            return
        name = NAMES[data[0] % len(NAMES)]
        self.counts[name] += 1
        try:
            targets.TARGETS[name].admitted(data[1:])
        except LensAIError:
            return
        except Exception:
            _keep([data], traceback.format_exc())
        self.counts[f"{name} admitted"] += 1
        self._waiting.append(data)
        if len(self._waiting) >= BATCH:
            self.settle()

    def settle(self) -> None:
        """Let a child go through what waits.

        Raises:
            FoundError: If something does not hold.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting or _survives(waiting):
            return
        alone = next(([data] for data in waiting if not _survives([data])), waiting)
        _keep(alone, "the child that read it ended; its last words are above")

    def tell(self) -> None:
        """Say how many there were."""
        for name in NAMES:
            if count := self.counts[name]:
                print(f"{name:>10}: {count:>8} inputs, {self.counts[f'{name} admitted']:>7} read by children, all held")
        sys.stdout.flush()


def _keep(inputs: list[bytes], why: str) -> NoReturn:
    """Write them down and stop; several where only all of them together end a child."""
    FOUND.mkdir(exist_ok=True)
    paths = [FOUND / f"{NAMES[data[0] % len(NAMES)]}-{hashlib.sha256(data).hexdigest()[:12]}" for data in inputs]
    for path, data in zip(paths, inputs, strict=True):
        path.write_bytes(data)
    told = " ".join(map(str, paths))
    print(f"\n{why}\nFOUND {told}\nreplay: {sys.executable} {sys.argv[0]} --replay {told}", flush=True)
    raise FoundError(told)


def _survives(batch: list[bytes]) -> bool:
    """Whether a child reads these inputs and ends as it should."""
    pid = os.fork()
    if pid == 0:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(TIME)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if (about := Path("/proc/self/statm")).exists():
            most = int(about.read_text().split()[0]) * resource.getpagesize() + MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        try:
            for data in batch:
                targets.TARGETS[NAMES[data[0] % len(NAMES)]].holds(data[1:])
        except BaseException:
            if len(batch) == 1:
                traceback.print_exc()
                sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def blindly(run: Run, seed: int, seconds: float = float("inf"), count: int | None = None) -> None:
    """Draw mutants of the seeds and of one another, for so long or so many.

    Raises:
        FoundError: If something does not hold of one.
    """
    rng, seeds, end, made = Random(seed), run.seeds(), time.monotonic() + seconds, 0
    pool = list(seeds)
    for data in pool:
        run.one(data)
    while time.monotonic() < end and (count is None or made < count):
        place = rng.randrange(len(pool))
        mutant = run.mutant(pool[place], rng)
        run.one(mutant)
        made += 1
        if rng.random() < 0.2 and len(mutant) < 1 << 16:
            pool[place] = mutant if rng.random() < 0.5 else seeds[place]
    run.settle()


def guided(run: Run, seed: int, seconds: int) -> None:
    """Let atheris choose; it does not come back, but ends the process."""
    folder, end = tempfile.mkdtemp(), time.monotonic() + seconds

    def one(data: bytes) -> None:
        status = 1
        with contextlib.suppress(FoundError):
            run.one(data)
            if time.monotonic() < end:
                return
            run.settle()
            run.tell()
            status = 0
        shutil.rmtree(folder)
        os._exit(status)

    for number, data in enumerate(run.seeds()):
        Path(folder, str(number)).write_bytes(data)
    FOUND.mkdir(exist_ok=True)
    longest = TIME * (BATCH + 2)  # a batch, and its inputs one by one
    limits = [f"-timeout={longest}", "-rss_limit_mb=4096", "-max_len=200000", "-verbosity=0"]
    atheris.Setup(
        [sys.argv[0], folder, *limits, f"-seed={seed % 2**32 or 1}", f"-artifact_prefix={FOUND}/"],
        one,
        custom_mutator=lambda data, most, drawn: run.mutant(bytes(data), Random(drawn))[:most],
    )
    atheris.Fuzz()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=secrets.randbits(31))
    parser.add_argument("--only", choices=NAMES)
    parser.add_argument("--plain", action="store_true", help="without atheris")
    parser.add_argument("--replay", type=Path, nargs="+", help="kept inputs")
    chosen = parser.parse_args()
    run = Run(chosen.only)
    if chosen.replay:
        for path in chosen.replay:
            run.one(path.read_bytes())
        run.settle()
        print("refused, or as it should be")
        return
    guide = "atheris" if PREPARED and not chosen.plain else "blind draws"
    print(f"fuzzing for {chosen.seconds} s with {guide}, --seed {chosen.seed}", flush=True)
    if guide == "atheris":
        guided(run, chosen.seed, chosen.seconds)
    try:
        blindly(run, chosen.seed, chosen.seconds)
    except FoundError:
        sys.exit(1)
    run.tell()


if __name__ == "__main__":
    main()
