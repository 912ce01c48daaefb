import sqlite3
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqtt_mdi.core.types import Result, Truth
from mqtt_mdi.errors import ConfigError, StorageError
from mqtt_mdi.storage.history import MOST_STRETCHES, pipelines, read_history, stretch_length
from mqtt_mdi.storage.store import Batch, Store


class Came(NamedTuple):
    at: float
    exit_stage: int | None
    latency_ms: float
    right: bool | None


came = st.builds(
    Came,
    st.sampled_from([0.0, 5.0, 7.5, 1e9]) | st.floats(0, 100) | st.floats(0, 2e9),
    st.none() | st.integers(1, 4),
    st.integers(0, 20).map(float),
    st.none() | st.booleans(),
)


def store(path: Path, answers: list[Came], pipeline: str = "demo") -> None:
    results, truths = [], []
    for number, answer in enumerate(answers):
        name = str(number)
        if answer.exit_stage is None:
            result = Result("cam1", name, "failed", latency_ms=answer.latency_ms, reason="lost")
        else:
            result = Result("cam1", name, "ok", 1, "one", 0.9, answer.exit_stage, "d1", answer.latency_ms)
        results.append((result, answer.at))
        if answer.right is not None:
            truths.append(Truth("cam1", name, 1 if answer.right else 2))
    with Store(path, pipeline) as opened:
        opened.write(Batch(results=tuple(results), truths=tuple(truths)))


def nearest_rank(values: list[float], share: Fraction) -> float | None:
    return next((v for v in sorted(values) if sum(w <= v for w in values) >= share * len(values)), None)


@settings(max_examples=40, deadline=None)  # each example makes a file
@given(answers=st.lists(came, min_size=1, max_size=40))
def test_stretches_hold_every_result_once(
    tmp_path_factory: pytest.TempPathFactory, answers: list[Came]
) -> None:
    path = tmp_path_factory.mktemp("history") / "a.db"
    store(path, answers)
    history = read_history(path, "demo")
    stretches = history.stretches
    first, last = min(a.at for a in answers), max(a.at for a in answers)
    assert (history.first, history.last) == (first, last)
    assert 1 <= len(stretches) <= MOST_STRETCHES
    length = stretch_length(last - first)
    assert [s.began_s for s in stretches] == [place * length for place in range(len(stretches))]
    assert all(s.seconds == length for s in stretches[:-1])
    assert stretches[-1].began_s + stretches[-1].seconds == pytest.approx(last - first)
    if len(stretches) > 1:
        assert 0.49 * length < stretches[-1].seconds < 1.51 * length
    for place, stretch in enumerate(stretches):
        inside = [a for a in answers if min(int((a.at - first) / length), len(stretches) - 1) == place]
        ok = [a for a in inside if a.exit_stage is not None]
        assert (stretch.answered, stretch.failed) == (len(ok), len(inside) - len(ok))
        judged = [a.right for a in ok if a.right is not None]
        assert (stretch.graded, stretch.correct) == (len(judged), sum(judged))
        stages = range(1, len(history.exits) + 1)
        assert stretch.exits == tuple(sum(a.exit_stage == stage for a in ok) for stage in stages)
        latencies = [a.latency_ms for a in ok]
        assert stretch.latency_p50_ms == nearest_rank(latencies, Fraction(50, 100))
        assert stretch.latency_p95_ms == nearest_rank(latencies, Fraction(95, 100))
    assert sum(history.exits) == sum(s.answered for s in stretches) == history.summary["answered"]
    assert sum(s.failed for s in stretches) == history.summary["failed"] == sum(history.failures.values())


@given(st.floats(0, 1e10), st.integers(1, 100))
def test_so_many_stretches_cover_any_duration(duration: float, most: int) -> None:
    length = stretch_length(duration, most)
    assert most * length >= duration * (1 - 1e-9)
    shorter = stretch_length(duration / 10, most)
    assert shorter <= length


def test_a_rate_of_a_moment_is_unknown(tmp_path: Path) -> None:
    store(tmp_path / "a.db", [Came(5.0, 1, 2.0, right=None)])
    (stretch,) = read_history(tmp_path / "a.db", "demo").stretches
    assert (stretch.seconds, stretch.throughput, stretch.accuracy) == (0.0, None, None)


def test_pipelines_of_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store(path, [Came(1.0, 1, 1.0, right=True)] * 3, "cams")
    store(path, [Came(9.0, 2, 1.0, right=False)] * 5, "doors")
    assert pipelines(path) == ["cams", "doors"]
    cams, doors = (read_history(path, name) for name in ("cams", "doors"))
    assert (cams.exits, doors.exits) == ((3,), (0, 5))
    assert (cams.summary["accuracy"], doors.summary["accuracy"]) == (1.0, 0.0)
    assert (cams.devices[0].answered, doors.devices[0].answered) == (3, 5)
    with pytest.raises(ConfigError, match="no results of pipeline windows; there are some of cams, doors"):
        read_history(path, "windows")


def test_a_locked_database_is_told_and_not_waited_for_long(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store(path, [Came(1.0, 1, 1.0, right=True)])
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match="locked"):
            read_history(path, "demo")


def test_a_policy_that_is_no_json_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store(path, [Came(1.0, 1, 1.0, right=True)])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO policies VALUES ('demo', 3, '{thresholds', 'start', 1.0)")
        connection.commit()
    with pytest.raises(StorageError, match="policy 3 of demo is no JSON"):
        read_history(path, "demo")
