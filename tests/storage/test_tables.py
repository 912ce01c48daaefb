"""The views, read as a person would: with plain SQL on the file."""

import sqlite3
from contextlib import closing
from dataclasses import fields
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqtt_mdi.core.types import Result, Truth, Window
from mqtt_mdi.storage.store import Batch, Store, read_summary
from mqtt_mdi.storage.tables import results, windows


def answer(frame_id: str, label: int, exit_stage: int, latency_ms: float) -> Result:
    return Result("cam1", frame_id, "ok", label, "boot", 0.9, exit_stage, "d1", latency_ms)


def rows(path: Path, sql: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(sql)]


def test_the_columns_hold_every_field() -> None:
    assert {f.name for f in fields(Result)} <= set(results.c.keys())
    assert {f.name for f in fields(Window)} <= set(windows.c.keys())


def test_the_views_give_what_is_computed_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    batch = Batch(
        results=(
            (answer("1", 7, 1, 10.0), 100.0),
            (answer("2", 7, 1, 20.0), 101.0),
            (answer("3", 3, 2, 60.0), 102.0),
            (answer("4", 3, 4, 90.0), 103.0),
            (Result("cam1", "5", "failed", latency_ms=9000.0, reason="no answer in 5 attempts"), 104.0),
        ),
        # wrong, right, right; the fourth is unknown, the failed one has no answer to grade
        truths=(Truth("cam1", "1", 8), Truth("cam1", "2", 7), Truth("cam1", "3", 3), Truth("cam1", "5", 1)),
    )
    with Store(path, "demo") as store, Store(path, "other") as other:
        store.write(batch)
        other.write(Batch(results=((answer("1", 0, 3, 5.0), 7.0),)))
        summary = store.summary()
    figures: dict[str, Any] = {
        "pipeline": "demo",
        "frames": 5,
        "answered": 4,
        "failed": 1,
        "graded": 3,
        "correct": 2,
        "accuracy": pytest.approx(2 / 3),
        "throughput": 1.0,  # 4 answers in the 4 seconds from the first result to the last
        "latency_mean_ms": 45.0,
        "latency_p50_ms": 20.0,
        "latency_p95_ms": 90.0,
    }
    exits: list[dict[str, Any]] = [
        {"exit_stage": 1, "frames": 2, "share": 0.5, "accuracy": 0.5},
        {"exit_stage": 2, "frames": 1, "share": 0.25, "accuracy": 1.0},
        {"exit_stage": 4, "frames": 1, "share": 0.25, "accuracy": None},
    ]
    assert rows(path, "SELECT * FROM summary WHERE pipeline = 'demo'") == [figures]
    assert rows(path, "SELECT * FROM exits WHERE pipeline = 'demo'") == [
        {"pipeline": "demo", **e} for e in exits
    ]
    assert summary == {**figures, "exits": exits}
    assert read_summary(path, "demo") == summary
    assert [row["pipeline"] for row in rows(path, "SELECT * FROM summary")] == ["demo", "other"]


def test_one_result_has_no_throughput(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db", "demo") as store:
        store.write(Batch(results=((answer("1", 7, 1, 10.0), 100.0),)))
        assert store.summary()["throughput"] is None


def test_a_pipeline_without_rows_has_zeros(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db", "demo") as store:
        summary = store.summary()
    assert summary["pipeline"] == "demo"
    assert (summary["frames"], summary["answered"], summary["failed"]) == (0, 0, 0)
    assert (summary["accuracy"], summary["throughput"], summary["latency_p50_ms"]) == (None, None, None)
    assert summary["exits"] == []


@settings(max_examples=40, deadline=None)  # each example makes a file
@given(latencies=st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
def test_percentiles_are_nearest_rank(
    tmp_path_factory: pytest.TempPathFactory, latencies: list[float]
) -> None:
    with Store(tmp_path_factory.mktemp("views") / "a.db", "demo") as store:
        store.write(Batch(results=tuple((answer(str(n), 0, 1, ms), 1.0) for n, ms in enumerate(latencies))))
        summary = store.summary()
    ranked = sorted(latencies)
    # whole numbers, because 0.95 * 20 is a little more than 19
    assert summary["latency_p50_ms"] == ranked[ceil(50 * len(ranked) / 100) - 1]
    assert summary["latency_p95_ms"] == ranked[ceil(95 * len(ranked) / 100) - 1]
