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
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

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
        holder = next((each for each in self._queues if may(each)), None)
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
        while found := self._waiting.next(lambda each: self._shared.fits(each, 1)):
            first, turn = found
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
