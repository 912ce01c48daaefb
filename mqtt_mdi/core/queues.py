"""Bounded memory: queues of tasks, and the set of keys seen lately."""

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator

from mqtt_mdi.core.types import Task


class OutputQueue:
    """Tasks that may leave, first in first out within each stage, so that none blocks another's."""

    def __init__(self) -> None:
        self._by_stage: dict[int, deque[Task]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, task: Task) -> None:
        """Put a task last."""
        self._by_stage.setdefault(task.stage, deque()).append(task)
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
