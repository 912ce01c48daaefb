"""Bounded memory: queues of tasks, and the set of keys seen lately."""

from collections import OrderedDict, defaultdict, deque
from collections.abc import Hashable, Iterator
from hashlib import blake2b

from mqtt_mdi.core.types import FrameKey, Task

DIGEST_BYTES = 16
EMPTY = bytes(DIGEST_BYTES)
FIRST_ROOM = 256
"""Frames that a set of recent ones has room for at first: a simulation has thousands of such sets."""


class OutputQueue:
    """Tasks that may leave, first in first out within each stage, so that none blocks another's."""

    def __init__(self) -> None:
        self._by_stage: defaultdict[int, deque[Task]] = defaultdict(deque)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, task: Task) -> None:
        """Put a task last."""
        self._by_stage[task.stage].append(task)
        self._length += 1

    def stages(self) -> list[int]:
        """The stages that have tasks waiting, latest stage first: those frames are nearest to done."""
        if not self._length:
            return []
        return sorted([stage for stage, tasks in self._by_stage.items() if tasks], reverse=True)

    def head(self, stage: int) -> Task:
        """The oldest task of a stage."""
        return self._by_stage[stage][0]

    def holds(self, stage: int) -> bool:
        """Whether a task of this stage waits."""
        return bool(self._by_stage.get(stage))

    def pop(self, stage: int) -> Task:
        """Take the oldest task of a stage."""
        self._length -= 1
        return self._by_stage[stage].popleft()

    def __iter__(self) -> Iterator[Task]:
        for tasks in self._by_stage.values():
            yield from tasks


class RecentSet:
    """The last `limit` keys added, to tell duplicates."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Not a dict: finding its first key means stepping over every key deleted before it.
        self._keys: OrderedDict[Hashable, None] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def discard(self, key: Hashable) -> None:
        """Forget a key."""
        self._keys.pop(key, None)

    def add(self, key: Hashable) -> bool:
        """Remember `key`; False when it was there already."""
        if key in self._keys:
            return False
        self._keys[key] = None
        if len(self._keys) > self._limit:
            self._keys.popitem(last=False)
        return True


class RecentFrames:
    """The last `limit` frames added, in 48 bytes for each when full, however long their names.

    A frame is known by 128 bits of its name's BLAKE2b digest: two frames share one as good as never,
    even where someone looks for such names. The digests stand in a ring, in the order in which they came,
    and in a table with open addressing (Knuth, The Art of Computer Programming, volume 3, section 6.4:
    algorithms L and R). Both double whenever the ring is full, up to the limit.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit * DIGEST_BYTES
        self._ring = bytearray()
        self._next = 0
        self._grow(min(limit, FIRST_ROOM) * DIGEST_BYTES)

    def __contains__(self, frame: FrameKey) -> bool:
        digest = _digest(frame)
        return self._at(self._find(digest)) == digest

    def add(self, frame: FrameKey) -> None:
        """Remember a frame."""
        digest = _digest(frame)
        if self._at(self._find(digest)) == digest:
            return
        if self._next == self._limit:
            self._next = 0
        elif self._next == len(self._ring):
            self._grow(min(self._next, self._limit - self._next))
        oldest = bytes(self._ring[self._next : self._next + DIGEST_BYTES])
        if oldest != EMPTY:
            self._remove(oldest)
        self._ring[self._next : self._next + DIGEST_BYTES] = digest
        self._next += DIGEST_BYTES
        self._put(self._find(digest), digest)

    def _grow(self, more: int) -> None:
        """Add room for so many bytes of digests to a full ring, and make a table to go with it."""
        known, self._ring = self._ring, self._ring + bytearray(more)
        # Half of the places stay empty, so that a search is short.
        self._table = bytearray(2 * len(self._ring))
        for start in range(0, len(known), DIGEST_BYTES):
            digest = bytes(known[start : start + DIGEST_BYTES])
            self._put(self._find(digest), digest)

    def _home(self, digest: bytes) -> int:
        return int.from_bytes(digest[:8]) * DIGEST_BYTES % len(self._table)

    def _at(self, place: int) -> bytes:
        return bytes(self._table[place : place + DIGEST_BYTES])

    def _put(self, place: int, digest: bytes) -> None:
        self._table[place : place + DIGEST_BYTES] = digest

    def _after(self, place: int) -> int:
        return (place + DIGEST_BYTES) % len(self._table)

    def _find(self, digest: bytes) -> int:
        """Where a digest stands, or would."""
        place = self._home(digest)
        while self._at(place) not in (EMPTY, digest):
            place = self._after(place)
        return place

    def _remove(self, digest: bytes) -> None:
        """Take a digest out, and move those up that would not be found across the gap."""
        gap = place = self._find(digest)
        size = len(self._table)
        while (other := self._at(place := self._after(place))) != EMPTY:
            if (place - self._home(other)) % size >= (place - gap) % size:
                self._put(gap, other)
                gap = place
        self._put(gap, EMPTY)


def _digest(frame: FrameKey) -> bytes:
    return blake2b("/".join(frame).encode(), digest_size=DIGEST_BYTES).digest()
