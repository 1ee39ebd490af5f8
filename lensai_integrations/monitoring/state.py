"""What a monitor remembers: the panes of windows to come, counts, and, with a folder, all of it on disk.

Killed at any point, the state on disk is as it was after the last batch that was finished. A folder holds profiles, in
files that are named by the sha256 of what is in them and never changed, and one `head.json` that says which of them
count, together with all counters, levels, and what still has to be told. A change is: write the new profiles, replace
the head in one step, remove the profiles that it does not name. A crash before the replacement changes nothing, one
after it leaves files that the next change removes.

A folder may be damaged, or come from a stranger. Names are checked, sizes bounded, digests compared, nothing is
unpickled; what cannot be read is set aside under another name, and the monitor begins anew.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.drift.calibration import calibration_of
from lensai_integrations.errors import FormatError, InputError, InUseError, LensAIError
from lensai_integrations.monitoring.batches import Batch, Measuring, OpenPane
from lensai_integrations.monitoring.judging import Judging, Whole
from lensai_integrations.monitoring.normal import Normal
from lensai_integrations.monitoring.telling import Teller
from lensai_integrations.monitoring.windows import Pane, Panes, Plan, kept_rows, profile_of_rows
from lensai_integrations.problems import Problems, log, pass_on, suppressed
from lensai_integrations.profiles.conventions import plain_name
from lensai_integrations.profiles.profile import IN_TIME, ORDER, Baseline, Profile, from_bytes, to_bytes
from lensai_integrations.storage.checked_json import from_json, to_json, whole_number
from lensai_integrations.storage.folders import lock, replace_file, write_file

HEAD: Final = "head.json"
FORMAT: Final = "lensai-monitor"
VERSION: Final = 1
#: Largest sizes in bytes that are read.
MAX_HEAD_BYTES: Final = 16 * 2**20
MAX_PROFILE_BYTES: Final = 512 * 2**20
#: More hours or days than these are none.
_MOST_CONTEXTS: Final = 32

_PROFILE = re.compile(r"[0-9a-f]{64}\.npz")
_OURS = re.compile(r"[0-9a-f]{64}\.npz|\.?head\.json\.[0-9a-f.]+\.partial")


class MonitorFolder:
    """A monitor's folder.

    Args:
        folder: Made if absent. One monitor at a time: it is locked until `release` or the end of the process.

    Raises:
        InputError: If it is a file.
        InUseError: If it is in use by another monitor.
        OSError: If it cannot be made.

    Example:
        >>> import tempfile
        >>> store = MonitorFolder(tempfile.mkdtemp())
        >>> store.commit({"rows": 3}, files=[])
        >>> store.head()["rows"]
        3
        >>> store.release()
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._lock: int | None = None
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"state={str(folder)!r} is a file: pass a folder")
        try:
            self.acquire()
        except BlockingIOError as error:
            raise InUseError(
                f"state={str(folder)!r} is in use by another monitor: pass a folder of its own for each process"
            ) from error

    def acquire(self) -> None:
        """Lock the folder, if it is not.

        Raises:
            OSError: If that is not possible.
        """
        if self._lock is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                lock(file)
            except OSError:
                os.close(file)
                raise
            self._lock = file

    def release(self) -> None:
        """Let another monitor have the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def head(self) -> dict[str, Any] | None:
        """What was committed last; None in a new folder.

        Raises:
            FormatError: If it is too large, no JSON, or not of this format and version.
            OSError: If it cannot be read.
        """
        path = self.folder / HEAD
        if not path.exists():
            return None
        if not path.is_file() or path.stat().st_size > MAX_HEAD_BYTES:
            raise FormatError(f"{path} is no file of at most {MAX_HEAD_BYTES} bytes")
        head = from_json(path.read_bytes(), str(path))
        if not isinstance(head, dict) or head.get("format") != FORMAT or head.get("version") != VERSION:
            raise FormatError(f"{path} is not the state of a monitor of this release (format {FORMAT!r}, {VERSION})")
        return head

    def set_aside(self) -> Path:
        """Rename the head, so that the monitor can begin anew and a person can look at it."""
        aside = self.folder / f"{HEAD}.damaged-{secrets.token_hex(4)}"
        os.replace(self.folder / HEAD, aside)  # noqa: PTH105 - see storage/folders.py
        return aside

    def put(self, profile: Profile | Baseline) -> str:
        """Write a profile or a baseline; it counts once a head names the file that is returned.

        Uncompressed: it is soon replaced by the next, and compressing took longer than all the rest of an update.
        """
        content = to_bytes(profile, compressed=False)
        name = f"{hashlib.sha256(content).hexdigest()}.npz"
        write_file(self.folder / name, content)
        return name

    def get(self, name: Any) -> Profile:
        """Read a profile.

        Raises:
            FormatError: If the name is none that `put` gives, the file is missing, too large or changed, or holds none.
        """
        profile = self.read(name)
        if not isinstance(profile, Profile):
            raise FormatError(f"{self.folder / name} holds a {type(profile).__name__}, not a profile")
        return profile

    def read(self, name: Any) -> Profile | Baseline:
        """Read a profile or a baseline.

        Raises:
            FormatError: If the name is none that `put` gives, or the file is missing, too large or changed.
        """
        if not isinstance(name, str) or not _PROFILE.fullmatch(name):
            raise FormatError(f"{HEAD} names a profile {name!r}, which is no name of one")
        path = self.folder / name
        if not path.is_file() or path.stat().st_size > MAX_PROFILE_BYTES:
            raise FormatError(f"{path} is missing, or has more than {MAX_PROFILE_BYTES} bytes")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != name.removesuffix(".npz"):
            raise FormatError(f"{path} is not what was written: truncated or changed")
        return from_bytes(content)

    def commit(self, head: Mapping[str, Any], files: Collection[str]) -> None:
        """Replace the head in one step, then remove the profiles that are not among `files`.

        Raises:
            OSError: If the disk is full or the folder is gone; what was committed before still holds.
        """
        self.acquire()
        content = to_json({"format": FORMAT, "version": VERSION, **head}, "the state")
        replace_file(self.folder / HEAD, content)
        for path in list(self.folder.iterdir()):
            if _OURS.fullmatch(path.name) and path.name not in files:
                with suppressed(OSError):
                    os.unlink(path)  # noqa: PTH108 - see storage/folders.py


class Memory:
    """Everything of a monitor that outlives a batch, and with a folder the process.

    Args:
        plan: How windows are laid out.
        measuring: Makes profilers.
        judging: Levels and counts.
        teller: What is still to be told.
        failures: Where it is noted that the state cannot be written.
        warm_start: Whether the first window is filled with rows of the baseline.

    Attributes:
        opened: The panes that are being filled, by number: by rows always one, by time as many as have rows.
        first: By time, number of the first pane that is not closed.
        rows: Measured so far, restarts included.
        late: Rows that came when their window had been judged, and are in none.
        early: Rows whose timestamp was far ahead of the clock.
        restarts: How often a state was gone on with.
        restored_from: What that state said its monitor was; empty without one.

    Raises:
        InputError: If a warm start is not possible.
    """

    def __init__(
        self,
        plan: Plan,
        measuring: Measuring,
        judging: Judging,
        teller: Teller,
        failures: Problems,
        warm_start: bool = False,
    ) -> None:
        self._plan, self._measuring, self._judging = plan, measuring, judging
        self._teller, self._failures = teller, failures
        if warm_start and (plan.by_time or plan.window == plan.stride):
            raise InputError(
                "warm_start=True fills a sliding window by rows: pass window= and a smaller stride= in rows"
            )
        self._warm = plan.window - plan.stride if warm_start else 0
        self.rows = self.restarts = self.late = self.early = self.first = 0
        self.restored_from = ""
        self._store: MonitorFolder | None = None
        self._normal_files: dict[str, str] = {}
        self._normal_kept: Normal | None = judging.normal
        self.start_over()

    def start_over(self) -> None:
        """Forget the rows so far; the next window begins with the next row."""
        self._panes = Panes(self._plan)
        for pane in self._warm_panes():
            self._panes.push(pane)
        self.opened: dict[int, OpenPane] = {}
        if not self._plan.by_time:
            self.opened[self._warm] = self._new_pane(self._warm)
        self._unjudged = 0

    def _new_pane(self, number: int) -> OpenPane:
        return OpenPane(number, self._measuring.profiler())

    @property
    def room(self) -> int:
        """By rows, how many the pane that is being filled still takes."""
        (pane,) = self.opened.values()
        return self._plan.pane - pane.rows

    @property
    def newest_closed(self) -> int | None:
        """Number of the newest closed pane that a window to come may need."""
        return self._panes.kept[-1].number if self._panes.kept else None

    def _warm_panes(self) -> list[Pane]:
        if not self._warm:
            return []
        size, reference = self._plan.pane, self._measuring.reference
        rows = kept_rows(reference, self._warm * size)
        return [
            Pane(number, size, 0.0, 0.0, profile_of_rows(pane_rows, reference), warm=size)
            for number in range(self._warm)
            for pane_rows in [{name: values[number * size : (number + 1) * size] for name, values in rows.items()}]
        ]

    def take(self, batch: Batch, times: NDArray[np.float64], number: int | None = None) -> None:
        """Measure a batch, into the pane of a number, by rows into the one that is being filled.

        Rows that come late go to a closed pane as long as a window that is to be judged has it; later they are counted.

        Args:
            batch: The rows.
            times: When they came, `[n]` seconds since 1970.
            number: By time, their pane.
        """
        if number is None:
            (number,) = self.opened
        if number >= self.first or not self._plan.by_time:
            pane = self.opened.get(number) or self._new_pane(number)
            taken = pane.take(batch, times)
            if taken:
                self.opened[number] = pane
        elif number > self._plan.next_end(self.first) - self._plan.window:
            taken = self._take_late(batch, times, number)
        else:
            taken, self.late = 0, self.late + batch.n
        self.rows += taken
        self._unjudged += taken

    def _take_late(self, batch: Batch, times: NDArray[np.float64], number: int) -> int:
        late = self._new_pane(number)
        taken = late.take(batch, times)
        if not taken:
            return 0
        profile, rows, opened, closed = late.profile(), late.rows, late.opened, late.closed
        own = profile
        for kept in self._panes.kept:
            if kept.number == number:
                before = kept.profile
                if before is None:
                    assert self._store is not None
                    before = self._store.get(kept.file)
                own, rows = before.merge(profile), rows + kept.rows
                opened, closed = min(opened, kept.opened), max(closed, kept.closed)
        self._panes.amend(Pane(number, rows, opened, closed, own), profile)
        return taken

    def close_pane(self, number: int | None = None) -> Pane:
        """Close a pane, by rows the one that is being filled, and open the next.

        Raises:
            LensAIError: If its rows do not fit those before them; all are forgotten then, so that the next ones count.
        """
        if number is None:
            (number,) = self.opened
        ending = self.opened.pop(number)
        try:
            pane = Pane(ending.number, ending.rows, ending.opened, ending.closed, ending.profile(), file=ending.file)
            self._panes.push(pane)
        except Exception:
            others = self.opened
            self.start_over()
            self.opened |= others
            raise
        if not self._plan.by_time:
            following = self.opened[number + 1] = self._new_pane(number + 1)
            following.profiler.follow(pane.profile.rows if pane.profile is not None else None)
        return pane

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """A context that, if an error leaves it, takes back the panes by time that were begun in it, and their rows."""
        rows, unjudged, before = self.rows, self._unjudged, set(self.opened)
        try:
            yield
        except BaseException:
            if self._plan.by_time:
                self.opened = {number: pane for number, pane in self.opened.items() if number in before}
                self.rows, self._unjudged = rows, unjudged
            raise

    def cut_short(self) -> Pane | None:
        """The last pane, closed before it was full; None if all rows have been judged."""
        if not self._unjudged:
            return None
        last = max(self.opened, default=None)
        return self.close_pane(last) if last is not None and self.opened[last].rows else self._panes.kept[-1]

    def window(self, last: int, *, partial: bool = False) -> Whole | None:
        """The window that ends with a pane; None if it is not whole.

        Args:
            last: Number of the pane.
            partial: Take what there is.
        """
        panes = self._panes.window(last, partial=partial)
        if not panes:
            return None
        self._unjudged = sum(pane.rows for pane in self.opened.values())
        merged = self._panes.merged(last)
        self._panes.judged(last)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        info = {**merged.info, "source": self._measuring.source, "created": created}
        info |= {ORDER: IN_TIME} if self._measuring.in_time else {}
        fed = [pane for pane in panes if not pane.warm]
        rows, warm = sum(pane.rows for pane in panes), sum(pane.warm for pane in panes)
        times = (min(pane.opened for pane in fed), max(pane.closed for pane in fed))
        return Whole(Profile(merged.groups, merged.rows, info, merged.segments), rows, warm, *times)

    def restore(self, folder: str | Path) -> None:
        """Keep the state in a folder from now on, and go on with what is there.

        A state that cannot be read is set aside with a warning; that of another baseline as well.

        Raises:
            InputError: If the folder is a file, or in use.
        """
        try:
            self._store = MonitorFolder(folder)
            head = self._store.head()
        except OSError as error:
            pass_on(error)
            self._failures.note("state", error)
            return
        except FormatError as error:
            self._set_aside(str(error))
            return
        if head is None:
            return
        if head.get("baseline") != self._baseline_id():
            self._set_aside("it is the state of another baseline")
            return
        try:
            self._read(head)
        except FormatError as error:
            self._judging.start_over()
            self._set_aside(str(error))

    def _set_aside(self, why: str) -> None:
        assert self._store is not None
        with self._failures.caught("state"):
            log.warning("the state in %s is set aside as %s, and the monitor begins anew: %s", self._store.folder,
                         self._store.set_aside().name, why)  # fmt: skip

    def _read(self, head: Mapping[str, Any]) -> None:
        try:
            rows, restarts = whole_number(head["rows"]), whole_number(head["restarts"])
            unjudged, state = whole_number(head["unjudged"]), str(head["state"])
            late, early = whole_number(head.get("late", 0)), whole_number(head.get("early", 0))
            self._judging.restore(head["judging"])
            self._teller.restore(head["outbox"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise FormatError(f"head.json does not describe a monitor: {error!r}") from error
        self.rows, self.restarts, self.restored_from = rows, restarts + 1, state
        self.late, self.early = late, early
        self._read_normal(head.get("normal", {}))
        if head.get("plan") != asdict(self._plan):
            log.warning("the windows are laid out otherwise than in the state on disk: the next begins with no rows")
            return
        try:
            self._read_panes(head)
            if self._judging.spans is not None and head.get("spans") is not None:
                self._judging.spans.restore(head["spans"], self._profile)
            self._unjudged = unjudged
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError, RecursionError) as error:
            pass_on(error)
            log.warning("rows on disk cannot be read, the next window begins without them: %s", error)
            self.start_over()
            if self._judging.spans is not None:
                self._judging.spans.start_over()

    def _keep_normal(self, store: MonitorFolder) -> None:
        """Write what the monitor learned, if that is not on disk."""
        normal = self._judging.normal
        if normal is self._normal_kept:
            return
        learned = {"": normal.baseline} if normal.has_learned else {}
        self._normal_files = {key: store.put(each) for key, each in (learned | dict(normal.of_context)).items()}
        self._normal_kept = normal

    def _read_normal(self, files: Any) -> None:
        """Take what the monitor had learned; a baseline that has learned by itself is taken as it was given.

        What cannot be read is left out with a warning: it is no reason to forget anything else.
        """
        normal, read, unread = self._judging.normal, dict[str, Baseline](), dict[str, str]()
        if not isinstance(files, dict) or len(files) > _MOST_CONTEXTS:
            log.warning("what the monitor had learned from clean windows cannot be read, and is forgotten: no files")
            self._normal_kept = None
            return
        for key, file in files.items():
            try:
                read[key] = self._learned(key, file)
            except (LensAIError, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
                pass_on(error)
                unread |= {key: file} if isinstance(error, OSError) else {}  # a disk may be there again
                log.warning("what the monitor had learned from clean windows%s cannot be read, and is forgotten: %s",
                             f" of {key}" if key else "", error)  # fmt: skip
        of_context = {key: each for key, each in read.items() if key} if normal.context is not None else {}
        baseline = read.get("", normal.baseline)
        if "" in read and not _same_calibration(normal.baseline, read[""], learned=normal.has_learned):
            log.warning("the baseline is calibrated or taught otherwise than the state on disk, and goes before it")
            baseline, of_context = normal.baseline, {}
        elif normal.has_learned:
            baseline = normal.baseline
        self._judging.normal = replace(normal, baseline=baseline, of_context=of_context)
        self._normal_files = {key: file for key, file in files.items() if key in read} | unread
        self._normal_kept = self._judging.normal

    def _learned(self, key: Any, file: Any) -> Baseline:
        """A baseline that was learned, of a context or of none."""
        assert self._store is not None
        baseline, given = self._store.read(file), self._judging.normal.baseline
        if not isinstance(baseline, Baseline):
            raise FormatError(f"{file} holds no baseline")
        if not key and _id_of(baseline.reference) != _id_of(given if isinstance(given, Profile) else given.reference):
            raise FormatError(f"{file} is of another baseline")
        if key:
            self._measuring.check(baseline.reference)
            if not baseline.reference.groups.keys() & self._measuring.reference.groups.keys():
                raise FormatError(f"{file} is of nothing that this monitor measures")
        calibration_of(baseline)  # read here, where an error harms nothing
        return baseline

    def _read_panes(self, head: Mapping[str, Any]) -> None:
        panes = Panes(self._plan)
        warm = {pane.number: pane for pane in self._warm_panes()}
        for entry in head["panes"]:
            number = whole_number(entry["number"])
            panes.push(warm[number] if entry["warm"] else self._pane(entry))
        number = whole_number(head["open"]["number"])
        opened = {} if self._plan.by_time else {number: self._new_pane(number)}
        for entry in [head["open"], *head.get("opened", [])]:
            if entry["rows"]:
                kept = self._pane(entry)
                opened[kept.number] = replace(
                    self._new_pane(kept.number), earlier=kept.profile, rows=kept.rows, opened=kept.opened,
                    closed=kept.closed, file=kept.file,
                )  # fmt: skip
        if not self._plan.by_time:
            _check_order([pane.number for pane in panes.kept], opened, self._plan)
        first = whole_number(head.get("first", number))
        if self._plan.by_time and any(number < first for number in opened):
            raise FormatError(f"of the panes {sorted(opened)}, some are before the first that is not closed, {first}")
        self._panes, self.opened, self.first = panes, opened, first

    def _profile(self, file: Any) -> Profile:
        assert self._store is not None
        profile = self._store.get(file)
        self._measuring.check(profile)
        return profile

    def _pane(self, entry: Mapping[str, Any]) -> Pane:
        profile = self._profile(entry["file"])
        opened, closed = float(entry["opened"]), float(entry["closed"])
        if not math.isfinite(opened + closed):
            raise FormatError(f"the time of pane {entry['number']} is not a number")
        number, rows = whole_number(entry["number"]), whole_number(entry["rows"])
        return Pane(number, rows, opened, closed, profile, file=str(entry["file"]))

    def save(self, state: str) -> None:
        """Write everything down; without a folder nothing. That it fails is noted, and tried again next time.

        Args:
            state: `"Running"`, `"Completed"` or `"Failed"`.
        """
        store = self._store
        if store is None:
            return
        with self._failures.caught("state"):
            for pane in self._panes.kept:
                if not pane.warm and not pane.file:
                    assert pane.profile is not None
                    self._panes.settle(pane.number, store.put(pane.profile))
            for open_pane in self.opened.values():
                if open_pane.rows and not open_pane.file:
                    open_pane.file = store.put(open_pane.profile())
            spans = self._judging.spans
            for span in spans.unsaved() if spans is not None else ():
                spans.settle(span, store.put(span.profile))  # type: ignore[union-attr]
            self._keep_normal(store)
            head = self._head(state)
            files = {entry["file"] for entry in (*head["panes"], head["open"], *head["opened"])}
            files |= set(self._normal_files.values())
            store.commit(head, files | (spans.files if spans is not None else set()))

    def _head(self, state: str) -> dict[str, Any]:
        kept = [_described(pane) | {"warm": bool(pane.warm)} for pane in self._panes.kept]
        none = {"number": self.first, "rows": 0, "opened": 0.0, "closed": 0.0, "file": ""}
        oldest, *others = [_described(self.opened[number]) for number in sorted(self.opened)] or [none]
        return {
            "state": state,
            "baseline": self._baseline_id(),
            "plan": asdict(self._plan),
            "rows": self.rows,
            "restarts": self.restarts,
            "unjudged": self._unjudged,
            "judging": self._judging.state(),
            "panes": kept,
            "spans": None if self._judging.spans is None else self._judging.spans.state(),
            "open": oldest,
            "opened": others,
            "normal": self._normal_files,
            "first": self.first,
            "late": self.late,
            "early": self.early,
            "outbox": self._teller.state(),
        }

    def _baseline_id(self) -> str:
        return _id_of(self._measuring.reference)

    def release(self) -> None:
        """Let another monitor have the folder."""
        if self._store is not None:
            self._store.release()


def _id_of(reference: Profile) -> str:
    """A digest of what a reference is of, by which another is told apart."""
    groups = [  # by plain names, as earlier releases had them of the one convention there is here
        [plain_name(g.name), list(g.streams), sorted(g.definitions.items()), g.n] for g in reference.groups.values()
    ]
    about = [groups, reference.n, str(reference.info.get("created"))]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _same_calibration(one: Baseline | Profile, other: Baseline, *, learned: bool) -> bool:
    """Whether two calibrations are of the same windows drawn, and if asked for have learned the same.

    Of a baseline that is not calibrated any may be.
    """
    ours, theirs = (each.calibration if isinstance(each, Baseline) else None for each in (one, other))
    if ours is None or theirs is None:
        return not learned
    names = [name for name in ours if learned or not (name == "about" or name.endswith("/inflation"))]
    return all(name in theirs and np.array_equal(ours[name], theirs[name]) for name in names)


def _described(pane: Pane | OpenPane) -> dict[str, Any]:
    return {key: getattr(pane, key) for key in ("number", "rows", "opened", "closed", "file")}


def _check_order(numbers: list[int], opened: Mapping[int, OpenPane], plan: Plan) -> None:
    """Panes by rows follow one another, and the one that is open is not full."""
    last = min(opened)
    if len(opened) > 1 or numbers != list(range(last - len(numbers), last)) or opened[last].rows >= plan.pane:
        raise FormatError(
            f"the panes {numbers} and {sorted(opened)} with {opened[last].rows} rows make no windows of {plan}"
        )
