"""What one sender may take of what all senders share, so that nobody's device can keep another's from being heard.

Who a sender is: a token of one sensor, wherever it sends from; else the token together with the address, for a token of
all sensors is on many devices; else the address. Three rules, each of which needs to know nothing of the others:

* **At a moment** (`Shared`: bytes in memory, uploads under way, archives being unpacked, pages being made) nobody who
  has as much as is left gets more: one alone has half, two in the long run a third each, and so on. This is how
  switches share the memory of their queues (Choudhury and Hahne, *Dynamic queue length thresholds for shared-memory
  packet switches*, 1998). Nothing has to be configured, a busy server is used, and whoever comes finds room.
* **In a queue** (`InTurn`: archives, pages, the next transaction) senders take turns, so nobody waits behind the queue
  of another.
* **In a day** (`Budget`: bytes and new hours of a sensor) there is an allowance. What was not used is kept for ten
  days: a device that was offline for three months may send what it has at once.

A token of all sensors is trusted as the fleet is: what it does as one sensor is held against it as that sensor only. So
give devices tokens of their own. All of this is in the memory of one process: of several servers each has its own
shares, and a server that was started again has forgotten what was used.

`Turns` are these rules as requests meet them. A body has the memory of what has come of it, not of what it says will
come: a device on a slow line, or one that only promises, takes no room from others. There is nothing to wait for while
a body is half there (of two that wait for each other's memory neither would end), so what does not fit is sent again.
Whole bodies wait for their turn to be unpacked, and need no place any more: of a fleet that uploads in the same second
nothing is refused because the server is slower.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import random
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from fastapi import HTTPException

from lensai_integrations.server.settings import Settings
from lensai_integrations.server.tokens import Grant

T = TypeVar("T")

_DAY: Final = 86_400.0
#: Days for which an allowance that was not used is kept.
KEPT_DAYS: Final = 10
#: Most of whom a budget knows what they have used; whoever was heard of longest ago is forgotten first.
_KNOWN: Final = 20_000


@dataclass(frozen=True)
class Sender:
    """Whoever sends a request.

    Attributes:
        grant: What the token allows.
        address: Where the request came from; of IPv6 the network.

    Example:
        >>> Sender(Grant("door-3", "f00d"), "192.0.2.1").holder, Sender(Grant("", "f00d"), "192.0.2.1").holder
        ('f00d', 'f00d 192.0.2.1')
    """

    grant: Grant
    address: str = ""

    @property
    def holder(self) -> str:
        """Whom a share is of."""
        return self.grant.token if self.grant.sensor else f"{self.grant.token} {self.address}"


def network_of(host: str) -> str:
    """The address by which a sender is told from others: whoever has IPv6 has 2^64 addresses.

    Example:
        >>> network_of("192.0.2.1"), network_of("::ffff:192.0.2.1"), network_of("2001:db8:0:1::42")
        ('192.0.2.1', '192.0.2.1', '2001:db8:0:1::/64')
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host[:64]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))


class Shared:
    """So many of something, of which nobody gets more who has as much as is left.

    Args:
        most: How many there are; who asks for more than that at once has to be alone.

    Example:
        >>> slots = Shared(4)
        >>> [slots.take("a", 1), slots.take("a", 1), slots.take("a", 1), slots.take("b", 1), slots.take("c", 1)]
        [True, True, False, True, True]
    """

    def __init__(self, most: int) -> None:
        #: How many there are, and how many of them all have together.
        self.most, self.taken = most, 0
        self._held = Counter[str]()

    def held(self, holder: str) -> int:
        """How many one has."""
        return self._held[holder]

    def fits(self, holder: str, amount: int) -> bool:
        """Whether one may have so many more."""
        return not self.taken or self._held[holder] + amount <= self.most - self.taken

    def take(self, holder: str, amount: int) -> bool:
        """Have so many more, if that fits; whether it does."""
        if fits := self.fits(holder, amount):
            self._held[holder] += amount
            self.taken += amount
        return fits

    def give(self, holder: str, amount: int) -> None:
        """Give so many back."""
        self._held[holder] -= amount
        self.taken -= amount
        if not self._held[holder]:
            del self._held[holder]

    def is_over(self, holder: str) -> bool:
        """Whether one has an equal part of what is taken, or more: then others are not why it gets no more."""
        return self._held[holder] > 0 and self._held[holder] * len(self._held) >= self.taken


class InTurn(Generic[T]):
    """What waits: of one holder the oldest is first, and holders take turns.

    Example:
        >>> waiting = InTurn[int]()
        >>> for holder, item in (("a", 1), ("a", 2), ("a", 3), ("b", 4)):
        ...     waiting.add(holder, item)
        >>> [waiting.next()[1] for _ in range(4)]
        [1, 4, 2, 3]
    """

    def __init__(self) -> None:
        self._queues: dict[str, deque[T]] = {}

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, holder: str, item: T) -> None:
        """Have something wait."""
        self._queues.setdefault(holder, deque()).append(item)

    def next(self, may: Callable[[str], bool] = lambda _: True) -> tuple[str, T] | None:
        """What is next, of a holder that may; it waits no more."""
        holder = next((candidate for candidate in self._queues if may(candidate)), None)
        if holder is None:
            return None
        queue = self._queues.pop(holder)
        item = queue.popleft()
        if queue:
            self._queues[holder] = queue  # behind the others
        return holder, item

    def discard(self, holder: str, item: T) -> None:
        """Have something wait no more, if it does."""
        queue = self._queues.get(holder, deque())
        if item in queue:
            queue.remove(item)
            if not queue:
                del self._queues[holder]


class Slots:
    """So many may do something at the same time, shared like `Shared`; further ones wait in turn.

    Args:
        most: How many.
    """

    def __init__(self, most: int) -> None:
        self._shared, self._waiting = Shared(most), InTurn[asyncio.Future[None]]()

    @asynccontextmanager
    async def slot(self, holder: str) -> AsyncIterator[None]:
        """Wait for a slot, and have it."""
        if not self._shared.take(holder, 1):
            await self._turn(holder)
        try:
            yield
        finally:
            self._give(holder)

    async def _turn(self, holder: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(holder, turn)
        try:
            await turn
        except asyncio.CancelledError:
            self._waiting.discard(holder, turn)
            if not turn.cancelled():  # it was given in the same moment
                self._give(holder)
            raise

    def _give(self, holder: str) -> None:
        self._shared.give(holder, 1)
        while entry := self._waiting.next(lambda candidate: self._shared.fits(candidate, 1)):
            first, turn = entry
            if not turn.done():  # its request may have been given up in the same moment
                self._shared.take(first, 1)
                turn.set_result(None)


class Budget:
    """How much everybody may use: so much at once, and of what was used a part comes back every day.

    Args:
        what: Of what it is, for messages.
        most: How much at once.
        a_day: How much comes back in a day.
        clock: Seconds that only grow.

    Example:
        >>> now = [0.0]
        >>> hours = Budget("new hours", most=240, a_day=24, clock=lambda: now[0])
        >>> hours.spend("door-3", 240)
        >>> hours.wait("door-3", 1), hours.wait("door-4", 1)
        (3600.0, 0.0)
        >>> now[0] = 3600.0
        >>> hours.wait("door-3", 1)
        0.0
    """

    def __init__(self, what: str, most: float, a_day: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.what, self.most = what, most
        self._a_second, self._clock = a_day / _DAY, clock
        self._spent: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def spent(self, key: Hashable) -> float:
        """How much is used and has not come back."""
        amount, when = self._spent.get(key, (0.0, 0.0))
        return max(0.0, amount - self._a_second * (self._clock() - when))

    def wait(self, key: Hashable, amount: float) -> float:
        """Seconds until so much may be used; 0 if it may now."""
        return max(0.0, (self.spent(key) + amount - self.most) / self._a_second)

    def spend(self, key: Hashable, amount: float) -> None:
        """Use so much, whether it may be used or not."""
        self._spent[key] = self.spent(key) + amount, self._clock()
        self._spent.move_to_end(key)
        if len(self._spent) > _KNOWN:
            self._spent.popitem(last=False)


@dataclass(frozen=True)
class Spent:
    """An allowance that is used up.

    Attributes:
        what: Of what it is.
        seconds: Until there is enough again.
    """

    what: str
    seconds: float


#: What something is charged to: whose part of which budget, and how much.
Charge = tuple[Budget, Hashable, float]


class Bill:
    """What a transaction will have used; nothing is used before it is paid.

    Example:
        >>> hours = Budget("new hours", most=1, a_day=24)
        >>> bill = Bill()
        >>> bill.add("first", [(hours, "door-3", 1.0)])
        >>> bill.add("second", [(hours, "door-3", 1.0)]).what
        'new hours'
        >>> bill.pay(["first"])
        >>> hours.spent("door-3") > 0.9
        True
    """

    def __init__(self) -> None:
        self._amounts = Counter[tuple[Budget, Hashable]]()
        self._charges: dict[Hashable, list[Charge]] = {}

    def add(self, item: Hashable, charges: list[Charge]) -> Spent | None:
        """Charge something, if all of it may be used; else what may not be, and nothing is charged."""
        for budget, key, amount in charges:
            if seconds := budget.wait(key, self._amounts[budget, key] + amount):
                return Spent(budget.what, seconds)
        for budget, key, amount in charges:
            self._amounts[budget, key] += amount  # type: ignore[assignment]  # counts may be of any number
        self._charges[item] = charges
        return None

    def pay(self, items: Iterable[Hashable]) -> None:
        """Use what some of them were charged."""
        for item in items:
            for budget, key, amount in self._charges[item]:
                budget.spend(key, amount)


class Allowances:
    """What may be stored in a day: bytes and new hours of each sensor.

    Args:
        settings: How much.
        clock: Seconds that only grow.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.bytes = Budget("bytes", KEPT_DAYS * settings.bytes_a_day, settings.bytes_a_day, clock)
        self.hours = Budget("new hours", KEPT_DAYS * settings.hours_a_day, settings.hours_a_day, clock)
        #: Hours of sensors that are in the store for sure, so that it is not asked with every upload. One that has been
        #: deleted since is not charged again, no more.
        self.known: set[tuple[str, int]] = set()

    def know(self, hours: Iterable[tuple[str, int]]) -> None:
        """Hours of sensors that are in the store now."""
        self.known.update(hours)
        if len(self.known) > _KNOWN:
            self.known.clear()


#: Most requests for answers and pages that are under way.
_READERS: Final = 256
#: Seconds of silence after which an upload leaves its place to another of the same sender that has none. The devices of
#: a fleet may have one token and one address, and a device that was cut off has uploads that never go on.
SILENT: Final = 5.0
#: Seconds among which those are told one who should come again soon: refused together, they do not come back together.
_SOON: Final = (2.0, 30.0)


class LaterError(HTTPException):
    """The answer to an upload that may be sent again: 503 for what has to do with the server, 429 with its sender.

    Args:
        status: 503 or 429.
        detail: Why.
        seconds: After which it may be.
        result: What it is counted as.
    """

    def __init__(self, status: int, detail: str, seconds: float, result: str = "") -> None:
        super().__init__(status, f"{detail}: send it again", {"Retry-After": str(max(1, math.ceil(seconds)))})
        self.result = result or ("over share" if status == 429 else "unavailable")


def used_up(sensor: str, spent: Spent) -> LaterError:
    """The answer to a sensor that has used its allowance.

    Example:
        >>> str(used_up("door-3", Spent("new hours", 360.0)))
        "429: sensor 'door-3' has had all the new hours of its sender's share: send it again"
    """
    return LaterError(429, f"sensor {sensor!r} has had all the {spent.what} of its sender's share", spent.seconds)


class Room:
    """The place and the memory that one upload has."""

    def __init__(self, turns: Turns, holder: str) -> None:
        self._turns, self._holder, self._size = turns, holder, 0
        self._limit: asyncio.Timeout | None = None
        self._has_place = True
        #: Whether another upload of the sender has its place now.
        self.is_replaced = False

    def resize(self, size: int) -> None:
        """Have so many bytes instead.

        Raises:
            LaterError: If there are not so many more.
        """
        memory, more = self._turns.memory, size - self._size
        if more <= 0:
            memory.give(self._holder, -more)
        elif not memory.take(self._holder, more):
            raise _too_much(memory, self._holder, "in memory")
        self._size = size

    def grow(self, size: int) -> None:
        """Have so many bytes more.

        Raises:
            LaterError: If there are not so many more.
        """
        self.resize(self._size + size)

    @asynccontextmanager
    async def waiting(self, until: float) -> AsyncIterator[None]:
        """Wait for more of the body.

        Args:
            until: Time of the event loop.

        Raises:
            LaterError: If the place is needed for another upload.
            TimeoutError: If nothing comes until then.
        """
        silent = self._turns.silent.setdefault(self._holder, {})
        silent[self] = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(until) as self._limit:
                yield
        except TimeoutError:
            if self.is_replaced:
                raise LaterError(429, "silence, and others of this sender wait", random.uniform(*_SOON)) from None
            raise
        finally:
            del silent[self]
            if not silent:
                del self._turns.silent[self._holder]

    def leave(self) -> None:
        """Need no place any more: the body is whole, or will not be."""
        if self._has_place:
            self._has_place = False
            self._turns.uploads.give(self._holder, 1)

    def replace(self) -> None:
        """Leave the place to another upload."""
        assert self._limit is not None  # it waits
        self.is_replaced, self._has_place = True, False
        self._limit.reschedule(asyncio.get_running_loop().time())


class Turns:
    """What requests share.

    Args:
        settings: Limits.
    """

    def __init__(self, settings: Settings) -> None:
        #: Uploads whose bodies are coming.
        self.uploads = Shared(settings.uploads_at_once)
        #: Uploads under way with a token of one sensor, until they are answered, and how many may be.
        self._of_sensors, self._of_sensor = Counter[str](), settings.uploads_of_sensor
        #: Those of them that wait for more of their bodies, by holder, and since when; the longest silent first.
        self.silent: dict[str, dict[Room, float]] = {}
        #: Bytes of bodies that are read, and of sketches that are not on disk yet.
        self.memory = Shared(settings.memory_bytes)
        #: Archives that are unpacked, and answers that are made of the store.
        self.unpacking, self.reading = Slots(settings.archives_at_once), Slots(settings.reads_at_once)
        #: Requests for answers and pages under way, those that wait for their turn included.
        self.readers = Shared(_READERS)
        #: Threads that nothing else can occupy.
        self.threads = ThreadPoolExecutor(settings.archives_at_once, "lensai-uploads")

    def fit(self, connections: int) -> None:
        """Have fewer requests under way than there may be connections: who is refused needs one to be told.

        Args:
            connections: How many there may be.
        """
        self.uploads.most = min(self.uploads.most, max(connections * 7 // 8, 1))
        self.readers.most = min(self.readers.most, max(connections // 8, 1))

    @asynccontextmanager
    async def read(self, sender: Sender) -> AsyncIterator[None]:
        """Wait for the turn to be answered something, and have it.

        Raises:
            LaterError: If too many of the sender, or of all together, wait.
        """
        if not self.readers.take(sender.holder, 1):
            raise _too_much(self.readers, sender.holder, "under way")
        try:
            async with self.reading.slot(sender.holder):
                yield
        finally:
            self.readers.give(sender.holder, 1)

    @contextmanager
    def turn(self, sender: Sender) -> Iterator[Room]:
        """Be under way with an upload, and have memory for it.

        Raises:
            LaterError: If the sender, or all together, have too many.
        """
        holder = sender.holder
        few = bool(sender.grant.sensor) and self._of_sensors[holder] >= self._of_sensor
        if (few or not self.uploads.take(holder, 1)) and not self._replace_silent(holder):
            if few:
                raise LaterError(429, f"{self._of_sensor} uploads of this token are under way", random.uniform(*_SOON))
            raise _too_much(self.uploads, holder, "under way")
        room = Room(self, holder)
        self._of_sensors[holder] += 1
        try:
            yield room
        finally:
            room.resize(0)
            room.leave()
            self._of_sensors[holder] -= 1
            if not self._of_sensors[holder]:
                del self._of_sensors[holder]

    def _replace_silent(self, holder: str) -> bool:
        """Whether an upload of the same sender leaves its place, of which nothing has come for long."""
        now = asyncio.get_running_loop().time()
        for room, since in self.silent.get(holder, {}).items():
            if now - since < SILENT:
                break
            if not room.is_replaced:
                room.replace()
                return True
        return False


def _too_much(shared: Shared, holder: str, where: str) -> LaterError:
    seconds = random.uniform(*_SOON)
    if shared.is_over(holder):
        return LaterError(429, f"too much of this sender is {where}", seconds)
    return LaterError(503, f"too much is {where}", seconds)
