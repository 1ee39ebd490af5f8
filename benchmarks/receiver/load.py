"""Load on the receiver, on loopback only: `lensai serve` as a process, and clients that upload what devices do.

    python -m benchmarks.receiver.load [--uploads N] [--clients C] [--store-url URL | --postgresql] [--crash]
        [--quick] [--json FILE]

By default 4,000 uploads from 8 clients into SQLite in a temporary folder, then a crash: the server is killed (kill -9)
in the middle of the load, started again on the same store, and everything is sent again, what was acknowledged too.
Then every upload has to be in the store exactly once, and the sketches of every sensor's every hour have seen exactly
as many values as were sent. Exit status 1 if not, or if an aim is missed: 200 uploads a second, a 99th percentile below
100 ms, and memory that grows by less than 1 MiB over 1,000 uploads in the second half.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from tqdm.auto import tqdm

from benchmarks import results
from benchmarks.receiver.clients import Sent, send
from benchmarks.receiver.devices import Archive, Upload, baseline, expected, made_up, real, uploads_of
from benchmarks.receiver.server import Server, kept, running, size_of, trend

RATE, PERCENTILE, GROWTH = 200, 0.100, 1024  # uploads a second, seconds, KiB for 1,000 uploads
#: Uploads between looks at the server's memory, and before the first: what is loaded on first use is no leak.
LOOK, WARM = 500, 1000
DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data" / "lensai_edge"


def load(server: Server, uploads: Sequence[Upload], clients: int, limit: float) -> dict[str, Any]:
    """Send everything once; rates, latencies, memory and processor time of the server."""
    memory, before = [(0, server.resident())], server.processor()
    with tqdm(total=len(uploads), desc="uploads", mininterval=2) as bar:

        def look(answered: int) -> None:
            bar.update()
            if answered % LOOK == 0:
                memory.append((answered, server.resident()))

        sent = send(server.port, uploads, clients, limit, look)
    busy = server.processor() - before
    settled = server.settled(judged=False)
    warm = [sample for sample in memory if sample[0] >= min(WARM, len(uploads) // 2)] or memory
    later = [sample for sample in memory if sample[0] >= len(uploads) // 2] or memory
    return latencies(sent) | {
        "answered": sorted(sent.answers),
        "memory": memory,
        "grows": trend(warm) | {"kib_per_1000_later": trend(later)["kib_per_1000"]},
        "after": server.resident() / 2**20,
        "processor_ms": 1e3 * busy / max(1, len(sent.answers)),
        "cores": busy / sent.wall,
        "settled": settled,
    }


def latencies(sent: Sent) -> dict[str, Any]:
    """Uploads a second, and how long they took in milliseconds."""
    seconds = np.array(sent.seconds or [np.nan])
    ranks = np.quantile(seconds, [0.5, 0.99]) * 1e3
    statuses = {str(status): list(sent.answers.values()).count(status) for status in set(sent.answers.values())}
    return {
        "uploads": len(sent.answers),
        "statuses": statuses,
        "failed": len(sent.failed),
        "seconds": sent.wall,
        "rate": len(sent.answers) / sent.wall,
        "p50": float(ranks[0]),
        "p99": float(ranks[1]),
        "most": float(seconds.max() * 1e3),
    }


def crash(server: Server, uploads: Sequence[Upload], clients: int, kills: int, limit: float) -> dict[str, Any]:
    """Kill the server in the middle of the load, several times, and send everything again.

    Returns:
        How many uploads had been acknowledged before each kill, and how many of them were lost: answered 201 again.
    """
    acknowledged: set[int] = set()
    lost: set[int] = set()
    before_kill = []
    for part in range(kills + 1):
        stop_at = (part + 1) * len(uploads) // (kills + 1) if part < kills else None
        todo = [place for place in range(len(uploads)) if place not in acknowledged]

        def look(answered: int, stop_at: int | None = stop_at, known: int = len(acknowledged)) -> None:
            if stop_at is not None and known + answered == stop_at:
                server.kill()

        sent = send(server.port, [uploads[place] for place in todo], clients, limit, look)
        acknowledged |= {todo[i] for i, status in sent.answers.items() if status in (200, 201)}
        if part < kills:
            before_kill.append(len(acknowledged))
            server.start()
    again = send(server.port, uploads, clients, limit)
    lost |= {place for place, status in again.answers.items() if status != 200}
    return {"kills": kills, "before_kill": before_kill, "acknowledged": len(acknowledged), "lost": len(lost)}


def check(place: str, uploads: Sequence[Upload]) -> dict[str, int]:
    """Hold a store against what was sent: how much is missing, there twice, or counted otherwise."""
    keys, hours, images = kept(place)
    wanted, counts = {(upload.sensor, upload.timestamp) for upload in uploads}, expected(uploads)
    return {
        "uploads": len(keys),
        "missing": len(wanted - set(keys)),
        "twice": len(keys) - len(set(keys)),
        "unknown": len(set(keys) - wanted),
        "hours": len(hours),
        "hours_wrong": sum(hours.get(key) != counts.get(key) for key in hours.keys() | counts.keys()),
        "images": images,
    }


def archives(data: Path) -> list[Archive]:
    """Real ones where they are, and made-up ones."""
    return [*real(data), *(made_up(seed) for seed in range(40))]


def show_load(found: dict[str, Any], place: str) -> bool:
    """Print the table of a load; whether all aims are reached."""
    grows = found["grows"]
    size = size_of(place)
    fine = {
        f"{RATE} uploads a second": found["rate"] >= RATE,
        f"99th percentile below {PERCENTILE * 1e3:.0f} ms": found["p99"] < PERCENTILE * 1e3,
        f"memory grows by less than {GROWTH} KiB over 1,000 uploads": grows["kib_per_1000_later"] < GROWTH,
        "every upload answered 201": found["statuses"] == {"201": found["uploads"]} and not found["failed"],
    }
    print("\n| | |\n|---|---|")
    print(f"| uploads a second | {found['rate']:.0f} ({found['uploads']:,} in {found['seconds']:.0f} s) |")
    print(f"| latency, median / 99% / longest | {found['p50']:.0f} / {found['p99']:.0f} / {found['most']:.0f} ms |")
    print(f"| processor time of the server | {found['processor_ms']:.1f} ms an upload, {found['cores']:.2f} cores |")
    print(f"| memory at {WARM:,} uploads / at the end | {grows['early']:.0f} / {grows['last']:.0f} MiB |")
    print(
        f"| growth over 1,000 uploads, and in the second half | {grows['kib_per_1000']:.0f} KiB,"
        f" {grows['kib_per_1000_later']:.0f} KiB |"
    )
    print(f"| until all was merged | {found['settled']:.1f} s after the last answer |")
    print(f"| store | {'PostgreSQL' if size is None else f'{size / 2**20:.1f} MiB'} |\n")
    for aim, met in fine.items():
        print(f"- {aim}: {'met' if met else 'MISSED'}", flush=True)
    return all(fine.values())


def show_check(found: dict[str, int]) -> bool:
    """Print what a store holds; whether that is exactly what was sent."""
    wrong = {name: found[name] for name in ("missing", "twice", "unknown", "hours_wrong") if found[name]}
    word = f"WRONG: {wrong}" if wrong else "every upload once, every hour exact"
    print(
        f"- store: {found['uploads']:,} uploads, {found['images']:,} images, {found['hours']} hours: {word}", flush=True
    )
    return not wrong


def store_of(options: argparse.Namespace, stack: ExitStack, name: str) -> str:
    """A store of its own for each part; a URL's is used as it is."""
    if options.store_url:
        return str(options.store_url)
    return stack.enter_context(tempfile.TemporaryDirectory(prefix=f"lensai_{name}_", dir=options.folder))


def main(arguments: list[str] | None = None) -> int:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uploads", type=int, default=4000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--sensors", type=int, default=40)
    parser.add_argument("--limit", type=float, default=300, help="seconds after which nothing more is sent")
    parser.add_argument("--baseline", help="folder or MLflow URI; by default one is made")
    parser.add_argument("--folder", type=Path, help="where stores are made; by default the system's temporary folder")
    parser.add_argument("--store-url", help="an empty PostgreSQL database instead of SQLite")
    parser.add_argument("--postgresql", action="store_true", help="the same on a server started from local binaries")
    parser.add_argument("--data", type=Path, default=DATA, help="the shared LensAI data")
    parser.add_argument("--crash", action="store_true", help="only the crash")
    parser.add_argument("--load", action="store_true", help="only the load")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="300 uploads: does it run")
    results.add_argument(parser)
    options = parser.parse_args(arguments)
    if options.quick:
        options.uploads, options.kills = 300, 1
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        if options.baseline is None:
            options.baseline = str(baseline().save(f"{folder}/baseline"))
        if options.postgresql:
            options.store_url = stack.enter_context(postgresql())
        result, fine = measured(options, stack)
    results.write(options.json, "receiver/load", result)
    return 0 if fine or options.quick else 1


def measured(options: argparse.Namespace, stack: ExitStack) -> tuple[dict[str, Any], bool]:
    """All that is asked for; whether all is well."""
    sent = archives(options.data)
    size = sum(len(archive.content) for archive in sent) / len(sent) / 2**10
    print(f"{len(sent)} archives of {size:.0f} KiB in turn, {options.sensors} sensors, {options.clients} clients")
    start = int(time.time()) - 86_400
    start -= start % 3600
    result, fine = {}, True
    if not options.crash:
        place = store_of(options, stack, "load")
        uploads = uploads_of(sent, options.uploads, options.sensors, start)
        with running(options.baseline, place) as server:
            result["load"] = load(server, uploads, options.clients, options.limit)
        fine = show_load(result["load"], place) and fine
        fine = show_check(check(place, [uploads[i] for i in result["load"].pop("answered")])) and fine
    if not options.load and not (options.store_url and not options.crash):
        place = store_of(options, stack, "crash")
        uploads = uploads_of(sent, max(100, options.uploads // 4), options.sensors, start)
        with running(options.baseline, place) as server:
            found = result["crash"] = crash(server, uploads, options.clients, options.kills, options.limit)
            server.settled(judged=False)
        print(f"\nkilled after {found['before_kill']} answers; of {found['acknowledged']:,} {found['lost']} lost")
        fine = show_check(check(place, uploads)) and not found["lost"] and fine
    print(f"\nload of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return result, fine


@contextmanager
def postgresql() -> Iterator[str]:
    """URL of a server started from local binaries, which syncs as it does by default."""
    sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
    from postgresql import running as started

    with started(fsync="on") as server:
        yield server.url


if __name__ == "__main__":
    sys.exit(main())
