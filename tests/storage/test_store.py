import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Executable

from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.types import DeviceState, FrameKey, Result, Truth, Window
from mqtt_mdi.errors import StorageError
from mqtt_mdi.storage.store import _NEW_RESULTS, _NEWLY_JUDGED, Batch, Store, Totals, Written, read_summary
from mqtt_mdi.wire.messages import DeadLetter


def answer(frame_id: str, label: int = 7, exit_stage: int = 1) -> Result:
    return Result("cam1", frame_id, "ok", label, "boot", 0.9, exit_stage, "d1", 12.5)


def answers(count: int) -> Batch:
    return Batch(results=tuple((answer(str(n)), float(n)) for n in range(count)))


def rows(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


sensors = st.sampled_from(["cam1", "cam2"])
frame_ids = st.sampled_from(["a", "b", "c", "d"])
labels = st.integers(0, 2)
an_answer = st.builds(
    Result, sensors, frame_ids, st.just("ok"), labels, st.none(), st.floats(0, 1), st.integers(1, 4)
)
a_failure = st.builds(Result, sensors, frame_ids, st.just("failed"), reason=st.just("lost"))
a_truth = st.builds(Truth, sensors, frame_ids, labels)
batches = st.lists(st.lists(an_answer | a_failure | a_truth, max_size=12), max_size=8)


@settings(max_examples=40, deadline=None)  # each example makes a file
@given(batches=batches)
def test_any_split_into_batches_gives_what_plain_python_counts(
    tmp_path_factory: pytest.TempPathFactory, batches: Sequence[Sequence[Result | Truth]]
) -> None:
    path = tmp_path_factory.mktemp("store") / "a.db"
    stored: dict[FrameKey, Result] = {}
    truths: dict[FrameKey, int] = {}
    graded: set[FrameKey] = set()
    with Store(path, "demo") as store, Store(path, "other") as other:
        for items in batches:
            results = [item for item in items if isinstance(item, Result)]
            batch = Batch(
                results=tuple((result, 1.0) for result in results),
                truths=tuple(item for item in items if isinstance(item, Truth)),
            )
            new = [
                r for n, r in enumerate(results) if r.frame not in {*stored, *(q.frame for q in results[:n])}
            ]
            stored |= {result.frame: result for result in new}
            truths |= {truth.frame: truth.label for truth in batch.truths}
            fresh = [f for f, r in stored.items() if r.status == "ok" and f in truths and f not in graded]
            graded.update(fresh)
            right = tuple(stored[frame].label == truths[frame] for frame in fresh)
            correct = sum(stored[frame].label == truths[frame] for frame in graded)

            corrected = correct - sum(right) - store.totals().correct
            written = store.write(batch)
            assert written == Written(tuple(new), len(results) - len(new), right, corrected)
            assert other.write(batch) == written
            assert store.write(batch) == Written((), len(results), ())
        totals = store.totals()

    assert totals.graded == len(graded)
    assert totals.correct == sum(stored[frame].label == truths[frame] for frame in graded)
    assert totals.answered == sum(totals.exits) == sum(r.status == "ok" for r in stored.values())
    assert totals.failed == sum(r.status == "failed" for r in stored.values())
    in_file = rows(
        path,
        "SELECT sensor, frame_id, status, label, exit_stage, score, correct FROM results "
        "WHERE pipeline = 'demo' ORDER BY id",
    )
    assert in_file == [
        (
            *frame,
            r.status,
            r.label,
            r.exit_stage,
            r.score,
            r.label == truths[frame] if frame in graded else None,
        )
        for frame, r in stored.items()
    ]


@pytest.mark.parametrize("truth_first", [True, False])
def test_truth_may_come_before_or_after_the_result(tmp_path: Path, *, truth_first: bool) -> None:
    steps = [Batch(truths=(Truth("cam1", "0", 7),)), answers(1)]
    with Store(tmp_path / "a.db", "demo") as store:
        first, second = (store.write(step) for step in (steps if truth_first else reversed(steps)))
    assert (first.graded, second.graded) == ((), (True,))


def test_a_replaced_truth_changes_the_verdict_but_is_not_graded_twice(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db", "demo") as store:
        assert store.write(answers(1)).graded == ()
        assert store.write(Batch(truths=(Truth("cam1", "0", 7),))).graded == (True,)
        assert store.write(Batch(truths=(Truth("cam1", "0", 8),))) == Written(corrected=-1)
        assert store.totals() == Totals(1, 0, 1, 0, (1,))


def test_everything_outlives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    policy = Policy(version=3, thresholds=(0.8, 0.9))
    state = DeviceState("d1", "boot1", stages=(1, 2), service_by_stage={1: 0.25})
    batch = Batch(
        results=((answer("1", exit_stage=3), 5.0),),
        truths=(Truth("cam1", "1", 7), Truth("cam1", "2", 7)),
        policies=((Policy(thresholds=(0.5,)), "start", 1.0), (policy, "operator", 2.0)),
        devices=((state, 3.0),),
        windows=((Window(1.0, answered=1, graded=1, correct=1, exits=(0, 0, 1), latency_p50_ms=12.5), 4.0),),
        dead_letters=((DeadLetter("source", "mdi/v1/demo/frames/x", "no picture", "00ff", 2), 6.0),),
    )
    with Store(path, "demo") as store:
        store.write(batch)
        before = store.summary()
    with Store(path, "demo") as store:
        assert store.summary() == before
        assert store.totals() == Totals(1, 0, 1, 1, (0, 0, 1))
        assert store.last_policy() == policy
        assert store.write(Batch(results=batch.results)).duplicates == 1
        assert store.write(Batch(results=((answer("2"), 7.0),))).graded == (True,)
    assert rows(path, "SELECT pipeline, version, origin, set_at FROM policies ORDER BY version") == [
        ("demo", 0, "start", 1.0),
        ("demo", 3, "operator", 2.0),
    ]
    assert rows(path, "SELECT device, online, stages, state ->> 'boot', seen_at FROM devices") == [
        ("d1", 1, "[1, 2]", "boot1", 3.0)
    ]
    assert rows(
        path, "SELECT started_at, seconds, answered, correct, exits, latency_p95_ms FROM windows"
    ) == [(4.0, 1.0, 1, 1, "[0, 0, 1]", None)]
    assert rows(path, "SELECT reporter, topic, reason, first_bytes, size, at FROM dead_letters") == [
        ("source", "mdi/v1/demo/frames/x", "no picture", "00ff", 2, 6.0)
    ]


def test_device_history_has_a_row_for_each_change(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    up, gone = DeviceState("d1", "b", stages=(1,)), DeviceState("d1", "b", online=False, stages=(1,))
    busy = DeviceState("d1", "b", stages=(1,), input_queue=9)
    moved = DeviceState("d1", "b", stages=(2,))
    with Store(path, "demo") as store:
        store.write(Batch(devices=((up, 1.0), (busy, 2.0), (gone, 3.0))))
        store.write(Batch(devices=((gone, 4.0),)))
    with Store(path, "demo") as store:
        store.write(Batch(devices=((gone, 5.0), (up, 6.0), (moved, 7.0))))
    assert rows(path, "SELECT device, online, stages, at FROM device_changes ORDER BY id") == [
        ("d1", 1, "[1]", 1.0),
        ("d1", 0, "[1]", 3.0),
        ("d1", 1, "[1]", 6.0),
        ("d1", 1, "[2]", 7.0),
    ]
    assert rows(path, "SELECT device, online, stages, seen_at FROM devices") == [("d1", 1, "[2]", 7.0)]


def test_the_last_policy_is_the_pipelines_own_highest(tmp_path: Path) -> None:
    first, second = (Policy(version=n, thresholds=(0.5,)) for n in (1, 2))
    with Store(tmp_path / "a.db", "demo") as store, Store(tmp_path / "a.db", "other") as other:
        assert store.last_policy() is None
        store.write(Batch(policies=((second, "operator", 2.0), (first, "start", 1.0))))
        store.write(Batch(policies=((Policy(version=2, thresholds=(0.1,)), "again", 3.0),)))
        other.write(Batch(policies=((Policy(version=9, thresholds=()), "start", 1.0),)))
        assert store.last_policy() == second


def test_a_policy_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Store(path, "demo") as store:
        store.write(Batch(policies=((Policy(version=1, thresholds=(0.5,)), "start", 1.0),)))
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("""UPDATE policies SET body = '{"thresholds": "high"}'""")
        with pytest.raises(StorageError, match=r"the last policy of demo .*thresholds.* delete it"):
            store.last_policy()


@pytest.mark.parametrize("statement", [_NEWLY_JUDGED, _NEW_RESULTS], ids=["newly judged", "new results"])
def test_what_a_batch_changed_is_found_without_scanning_a_table(
    tmp_path: Path, statement: Executable
) -> None:
    path = tmp_path / "a.db"
    with Store(path, "demo") as store:
        store.write(Batch(answers(500).results, tuple(Truth("cam1", str(n), 7) for n in range(500))))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ANALYZE")
        plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", {"last_result": 499, "last_truth": 499})
        steps = [step for *_, step in plan]
    assert any("SEARCH" in step for step in steps)
    assert not any("SCAN" in step for step in steps)


def test_an_empty_batch_changes_nothing(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db", "demo") as store:
        assert store.write(Batch()) == Written()
        assert store.totals() == Totals(0, 0, 0, 0, ())


def test_a_locked_database_can_be_written_again_later(tmp_path: Path) -> None:
    path, batch = tmp_path / "a.db", answers(3)
    with Store(path, "demo", busy_timeout_s=0.05) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as blocker:
            blocker.execute("BEGIN EXCLUSIVE")
            with pytest.raises(StorageError, match="database is locked: another program keeps it locked"):
                store.write(batch)
            assert read_summary(path, "demo")["frames"] == store.totals().answered == 0
        assert store.write(batch) == Written(tuple(result for result, _ in batch.results))
        assert store.write(batch).duplicates == 3
        assert store.totals().answered == 3


def test_a_database_locked_at_the_start_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    Store(path, "demo").close()
    with closing(sqlite3.connect(path, isolation_level=None)) as blocker:
        blocker.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match="locked"):
            Store(path, "demo", busy_timeout_s=0.05)
    with Store(path, "demo") as store:
        assert store.totals().answered == 0


@pytest.mark.parametrize(
    ("fault", "repair", "message"),
    [
        ("max_page_count = 1", "max_page_count = 1000000", "the disk is full: make room"),
        ("query_only = ON", "query_only = OFF", "may only be read: allow"),
    ],
)
def test_a_disk_that_takes_nothing_loses_and_doubles_nothing(
    tmp_path: Path, fault: str, repair: str, message: str
) -> None:
    batch = Batch(answers(5000).results, tuple(Truth("cam1", str(n), 7) for n in range(5000)))
    with Store(tmp_path / "a.db", "demo") as store:
        store.write(Batch(results=batch.results[:10]))
        with store._database.engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA {fault}")
        with pytest.raises(StorageError, match=message):
            store.write(batch)
        assert store.totals() == Totals(10, 0, 0, 0, (10,))
        with store._database.engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA {repair}")
        written = store.write(batch)
        assert (len(written.new_results), written.duplicates, len(written.graded)) == (4990, 10, 5000)
        assert store.totals() == Totals(5000, 0, 5000, 5000, (5000,))


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Store(path, "demo") as store:
        store.write(answers(500))
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\xa5" * (len(whole) - 8192))
    with (
        pytest.raises(StorageError, match="malformed: the database is damaged"),
        Store(path, "demo") as store,
    ):
        store.write(answers(501))


def test_a_value_too_large_is_told_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db", "demo") as store:
        with pytest.raises(StorageError, match="integers must fit 64 bits"):
            store.write(Batch(results=answers(1).results, truths=(Truth("cam1", "0", 2**70),)))
        assert store.totals().answered == 0


def test_another_thread_may_write(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db", "demo") as store:
        thread = Thread(target=store.write, args=(answers(2),))
        thread.start()
        thread.join()
        assert store.totals().answered == 2


WRITER = """
import sys
from mqtt_mdi.core.types import Result
from mqtt_mdi.storage.store import Batch, Store
store = Store(sys.argv[1], "demo")
for batch in range(10**6):
    rows = tuple((Result("cam1", f"{batch}-{n}", "ok", 1), 1.0) for n in range(20))
    print(batch, len(store.write(Batch(results=rows)).new_results), flush=True)
"""


def test_what_was_written_outlives_a_killed_process(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        told = [writer.stdout.readline() for _ in range(5)]
        writer.kill()
    assert told == [f"{batch} 20\n" for batch in range(5)]
    with Store(path, "demo") as store:
        answered = store.totals().answered
        assert answered >= 100
        assert answered % 20 == 0
        again = tuple((Result("cam1", f"{batch}-{n}", "ok", 1), 1.0) for batch in range(5) for n in range(20))
        assert store.write(Batch(results=again)).duplicates == 100
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
