"""The tables of a report: the same cells for the terminal and the page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from mqtt_mdi.reporting.changes import differences
from mqtt_mdi.reporting.runs import Run
from mqtt_mdi.reporting.text import printable
from mqtt_mdi.storage.history import History, PolicyVersion, Stretch

NOTHING = "-"
MOST_ROWS = 200
_COUNTERS = ("arrived", "completed", "exits", "sent", "admitted", "answered", "failed", "refused", "retried")


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text, each row as long as the headings; `left` are columns of words, the rest of numbers."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: frozenset[int] = frozenset({0})
    note: str = ""


def count(value: float | None) -> str:
    """A whole number."""
    return NOTHING if value is None else f"{value:,.0f}"


def tenths(value: float | None) -> str:
    """A rate or a time, with one digit after the point."""
    return NOTHING if value is None else f"{value:,.1f}"


def share(value: float | None) -> str:
    """A share, in hundredths."""
    return NOTHING if value is None else f"{value:.2%}"


def clock(at: float) -> str:
    """A moment given in seconds since 1970, as UTC has it."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, OSError, ValueError):
        return f"{at:.0f} s after 1970"


def since(at: float, first: float) -> str:
    """Seconds after the first result; less than nothing for what was before it."""
    return f"{at - first:+,.1f}"


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of a run: how it is written, and whether two differ by points rather than a share."""

    name: str
    of: Callable[[History], float | None]
    write: Callable[[float | None], str] = count
    points: bool = False

    def row(self, runs: Sequence[Run]) -> list[str]:
        """Its name, its value in each run, and the difference if there are two."""
        values = [self.of(run.history) for run in runs]
        cells = [self.name, *map(self.write, values)]
        if len(values) > 1:
            cells.append(difference(values[0], values[1], points=self.points))
        return cells


def difference(before: float | None, after: float | None, *, points: bool) -> str:
    """What the second of two values has more: in points of a hundred, or as a share of the first."""
    if before is None or after is None:
        return NOTHING
    if points:
        return f"{100 * (after - before):+.2f} points"
    if before == after:
        return "same"
    return f"{after / before - 1:+.1%}" if before else f"{after:+,.1f}"


def _stored(name: str) -> Callable[[History], float | None]:
    return lambda history: history.summary[name]


def _at_exit(stage: int) -> Callable[[History], float | None]:
    def of(history: History) -> float | None:
        total = sum(history.exits)
        return (history.exits[stage - 1] if stage <= len(history.exits) else 0) / total if total else None

    return of


_MEASURES = (
    Measure("seconds from first to last result", lambda history: history.last - history.first, tenths),
    Measure("frames", _stored("frames")),
    Measure("answered", _stored("answered")),
    Measure("failed", _stored("failed")),
    Measure("graded", _stored("graded")),
    Measure("accuracy", _stored("accuracy"), share, points=True),
    Measure("throughput (answers/s)", _stored("throughput"), tenths),
    Measure("latency, mean (ms)", _stored("latency_mean_ms"), tenths),
    Measure("latency, median (ms)", _stored("latency_p50_ms"), tenths),
    Measure("latency, 95th percentile (ms)", _stored("latency_p95_ms"), tenths),
    Measure("devices that answered", lambda history: sum(bool(d.answered) for d in history.devices)),
    Measure("policies", lambda history: len(history.policies)),
    Measure("dead letters", lambda history: history.dead_letters),
)


def summary(runs: Sequence[Run]) -> Table:
    """Every figure of the whole runs; of two also what the second has more."""
    stages = max(len(run.history.exits) for run in runs)
    exits = (Measure(f"left at exit {k}", _at_exit(k), share, points=True) for k in range(1, stages + 1))
    begun = ["began", *(clock(run.history.first) for run in runs)]
    more = ["difference"] if len(runs) > 1 else []
    rows = [begun + [""] * len(more), *(measure.row(runs) for measure in (*_MEASURES, *exits))]
    return Table("Summary", ["", *(run.name for run in runs), *more], rows)


def over_time(runs: Sequence[Run]) -> list[Table]:
    """A row for each stretch of time; of two runs also one table with both side by side."""
    made = []
    if len(runs) > 1:
        made.append(_side_by_side(runs))
    for run in runs:
        stages = range(1, len(run.history.exits) + 1)
        rows = []
        for stretch in run.history.stretches:
            by_exit = (share(left / stretch.answered if stretch.answered else None) for left in stretch.exits)
            figures = [tenths(stretch.throughput), share(stretch.accuracy)]
            figures += [tenths(stretch.latency_p50_ms), tenths(stretch.latency_p95_ms)]
            begin = [f"{stretch.began_s:,.6g}", count(stretch.answered), count(stretch.failed)]
            rows.append([*begin, *figures, *by_exit])
        headings = ["from (s)", "answered", "failed", "answers/s", "accuracy", "p50 ms", "p95 ms"]
        made.append(
            Table(
                _titled("Over time", run, runs),
                [*headings, *(f"exit {k}" for k in stages)],
                rows,
                frozenset(),
            )
        )
    return made


_SIDE_BY_SIDE: dict[str, tuple[Callable[[Stretch], float | None], Callable[[float | None], str], bool]] = {
    "answers/s": (lambda stretch: stretch.throughput, tenths, False),
    "accuracy": (lambda stretch: stretch.accuracy, share, True),
    "p95 ms": (lambda stretch: stretch.latency_p95_ms, tenths, False),
}


def _side_by_side(runs: Sequence[Run]) -> Table:
    a, b = (run.history.stretches for run in runs)
    rows = []
    for place in range(max(len(a), len(b))):
        pair = [stretches[place] if place < len(stretches) else None for stretches in (a, b)]
        began = next(stretch.began_s for stretch in pair if stretch is not None)
        cells = [f"{began:,.6g}"]
        for value, write, points in _SIDE_BY_SIDE.values():
            values = [None if stretch is None else value(stretch) for stretch in pair]
            cells += [*map(write, values), difference(values[0], values[1], points=points)]
        rows.append(cells)
    names = [run.name for run in runs]
    headings = [f"{what} {name}" for what in _SIDE_BY_SIDE for name in (*names, "difference")]
    return Table("Over time, side by side", ["from (s)", *headings], rows, frozenset())


def device_tables(run: Run, runs: Sequence[Run]) -> list[Table]:
    """What each device brought, and when it came, went or changed its stages."""
    history = run.history
    answered = sum(device.answered for device in history.devices)
    used = [name for name in _COUNTERS if any(name in device.counters for device in history.devices)]
    brought = [
        [
            device.device,
            device.role,
            "online" if device.online else "gone",
            count(device.answered),
            share(device.answered / answered if answered else None),
            share(device.correct / device.graded if device.graded else None),
            *(count(device.counters.get(name)) for name in used),
            NOTHING if device.seen_at is None else since(device.seen_at, history.first),
        ]
        for device in history.devices
    ]
    changes = [
        [
            since(change.at, history.first),
            change.device,
            "online" if change.online else "gone",
            ",".join(map(str, change.stages)) or "none",
        ]
        for change in history.changes
    ]
    headings = ["device", "role", "state", "answered", "share", "accuracy", *used, "as of (s)"]
    return [
        Table(
            _titled("Devices", run, runs),
            headings,
            brought,
            frozenset({0, 1, 2}),
            "Counters are those that were stored when the device last came, went or changed its stages.",
        ),
        _last_rows(
            Table(
                _titled("Devices that came, went or changed", run, runs),
                ["at (s)", "device", "state", "stages"],
                changes,
                frozenset({1, 2, 3}),
            )
        ),
    ]


def policy_table(run: Run, runs: Sequence[Run]) -> Table:
    """Each policy: when, why, and in what it differs from the one before."""
    first = run.history.first
    before: PolicyVersion | None = None
    rows = []
    for policy in run.history.policies:
        if before is None:
            changed = [f"{name}: {policy.body.get(name)}" for name in ("strategy", "thresholds")]
        else:
            changed = list(differences(before.body, policy.body)) or ["nothing"]
        rows.append([str(policy.version), since(policy.set_at, first), policy.origin, "\n".join(changed)])
        before = policy
    headings = ["version", "at (s)", "why", "what changed"]
    return _last_rows(Table(_titled("Policies", run, runs), headings, rows, frozenset({2, 3})))


def failure_table(run: Run, runs: Sequence[Run]) -> Table:
    """Why frames failed, the most frequent reason first."""
    rows = [[reason, count(times)] for reason, times in run.history.failures.items()]
    kept = rows[:MOST_ROWS]
    note = f"{len(rows) - len(kept)} rarer reasons are left out." if len(rows) > len(kept) else ""
    return Table(_titled("Failed frames", run, runs), ["reason", "frames"], kept, frozenset({0}), note)


def tables(runs: Sequence[Run]) -> list[Table]:
    """All that have a row, in the order to be read."""
    made = [summary(runs), *over_time(runs)]
    for run in runs:
        made += [*device_tables(run, runs), policy_table(run, runs), failure_table(run, runs)]
    return [
        replace(table, rows=[[printable(cell) for cell in row] for row in table.rows])
        for table in made
        if table.rows
    ]


def _titled(title: str, run: Run, runs: Sequence[Run]) -> str:
    return f"{title}, {run.name}" if len(runs) > 1 else title


def _last_rows(table: Table) -> Table:
    left_out = len(table.rows) - MOST_ROWS
    if left_out <= 0:
        return table
    note = f"The {left_out} before these are left out; --csv writes all."
    return Table(table.title, table.headings, table.rows[left_out:], table.left, note)
