import tracemalloc
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqtt_mdi.core.ledger import Ledger
from mqtt_mdi.core.queues import FIRST_ROOM, OutputQueue, RecentFrames, RecentSet
from mqtt_mdi.core.types import FrameKey, Task


def task(frame: int, stage: int) -> Task:
    return Task("cam", str(frame), "source", stage)


def test_first_in_first_out_within_a_stage_and_latest_stage_first() -> None:
    queue = OutputQueue()
    for frame, stage in ((1, 2), (2, 3), (3, 2)):
        queue.append(task(frame, stage))
    assert queue.stages() == [3, 2]
    assert queue.head(2) == task(1, 2)
    assert [queue.pop(2), queue.pop(2), queue.pop(3)] == [task(1, 2), task(3, 2), task(2, 3)]
    assert queue.stages() == []
    assert not queue.holds(2)
    assert not queue.holds(9)


@given(st.lists(st.one_of(st.none(), st.integers(1, 4))))
def test_an_output_queue_is_a_queue_for_each_stage(steps: list[int | None]) -> None:
    queue = OutputQueue()
    model: dict[int, deque[Task]] = {stage: deque() for stage in range(1, 5)}
    for number, stage in enumerate(steps):
        if stage is not None:
            queue.append(task(number, stage))
            model[stage].append(task(number, stage))
        elif queue.stages():
            latest = queue.stages()[0]
            assert queue.pop(latest) == model[latest].popleft()
        assert len(queue) == sum(map(len, model.values()))
        assert queue.stages() == [stage for stage in (4, 3, 2, 1) if model[stage]]
        assert set(queue) == {waiting for tasks in model.values() for waiting in tasks}


@given(st.integers(1, 5), st.lists(st.integers(0, 9)))
def test_a_recent_set_knows_the_last_distinct_keys(limit: int, keys: list[int]) -> None:
    recent = RecentSet(limit)
    model: list[int] = []
    for key in keys:
        assert recent.add(key) is (key not in model)
        if key not in model:
            model = [*model, key][-limit:]
        assert len(recent) == len(model) <= limit
        assert all((key in recent) is (key in model) for key in range(10))


@given(st.integers(1, 8), st.lists(st.integers(0, 30)))
def test_recent_frames_are_the_last_distinct_ones(limit: int, numbers: list[int]) -> None:
    frames = [FrameKey("cam", str(number)) for number in range(31)]
    recent = RecentFrames(limit)
    model: list[FrameKey] = []
    for number in numbers:
        recent.add(frames[number])
        if frames[number] not in model:
            model = [*model, frames[number]][-limit:]
        assert [frame for frame in frames if frame in recent] == sorted(model, key=frames.index)
        assert FrameKey("ca", f"m{number}") not in recent


@pytest.mark.parametrize("limit", [100, FIRST_ROOM, 1000, 4 * FIRST_ROOM])
def test_recent_frames_take_48_bytes_each_and_no_more_when_full(limit: int) -> None:
    frames = [FrameKey("cam", f"{number:0128}") for number in range(5 * limit)]
    tracemalloc.start()
    recent, held = RecentFrames(limit), []
    for part in range(5):
        for frame in frames[part * limit : (part + 1) * limit]:
            recent.add(frame)
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert [frame in recent for frame in frames] == [False] * 4 * limit + [True] * limit
    assert held[0] < 48 * limit + 2000
    assert held[-1] < held[0] + 1000


def test_recent_frames_are_known_while_room_is_made_for_more() -> None:
    frames = [FrameKey("cam", str(number)) for number in range(3 * FIRST_ROOM)]
    recent = RecentFrames(3 * FIRST_ROOM)
    for number, frame in enumerate(frames):
        assert frame not in recent
        recent.add(frame)
        assert frames[0] in recent
        assert frames[number // 2] in recent
    assert all(frame in recent for frame in frames)


def test_the_books_must_balance() -> None:
    books = Ledger(admitted=5, answered=2, failed=1)
    books.check(2)
    with pytest.raises(AssertionError, match="with 3 owed"):
        books.check(3)


def test_the_books_by_name() -> None:
    assert Ledger(admitted=5, answered=2, failed=1, refused=4, retried=3, duplicates=6).counters() == {
        "admitted": 5,
        "answered": 2,
        "failed": 1,
        "refused": 4,
        "retried": 3,
        "duplicates": 6,
    }
