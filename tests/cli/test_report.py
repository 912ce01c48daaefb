"""`mqtt-mdi report`: what a database holds, in the terminal, as a page, as CSV."""

import csv
import json
import os
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from live import Pipeline, mqtt_mdi

from mqtt_mdi.cli.report import report
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.types import DeviceState, Result, Truth
from mqtt_mdi.errors import ConfigError, MdiError, StorageError
from mqtt_mdi.reporting.changes import differences
from mqtt_mdi.storage.database import Database
from mqtt_mdi.storage.store import Batch, Store
from mqtt_mdi.storage.tables import STORE
from mqtt_mdi.wire.messages import DeadLetter

BEGAN = 1_700_000_000.0
HOSTILE = "<script>alert(1)</script> & \x1b[31m$x$"


def make(path: Path, *, pipeline: str = "demo", rate: int = 10, right: int = 9, policies: int = 2) -> Path:
    """Twenty seconds at a rate; of ten answers so many are right, and each second one frame fails."""
    results, truths = [], []
    for number in range(20 * rate):
        name, at = f"f{number}", BEGAN + number / rate
        device = f"device-{number % 2 + 1}"
        answer = Result("cam1", name, "ok", 1, "one", 0.9, 1 + number % 4, device, 5.0 + number % 10)
        results.append((answer, at))
        truths.append(Truth("cam1", name, 1 if number % 10 < right else 2))
    results += [
        (Result("cam1", f"lost{second}", "failed", reason=HOSTILE), BEGAN + second) for second in range(20)
    ]
    versions = [
        (
            Policy(version=1 + n, thresholds=(0.8 + n / 1000, 0.9)),
            "start" if not n else "policy/set",
            BEGAN - 1 + 5 * n,
        )
        for n in range(policies)
    ]
    states = [
        (DeviceState("device-1", "b", stages=(1, 2), counters={"completed": 77}), BEGAN - 2),
        (DeviceState("device-2", "b", stages=(2,)), BEGAN + 3),
        (DeviceState("device-2", "b", online=False, stages=(2,)), BEGAN + 12),
    ]
    with Store(path, pipeline) as store:
        store.write(
            Batch(
                tuple(results),
                tuple(truths),
                tuple(versions),
                tuple(states),
                dead_letters=((DeadLetter("cam1", "t", "bad"), BEGAN),),
            )
        )
    return path


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(report, [str(part) for part in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def row(output: str, name: str) -> list[str]:
    """The cells of a row, from the right of its name."""
    (line,) = [line for line in output.splitlines() if line.startswith(f" {name}  ")]
    return re.split(r"\s{2,}", line.removeprefix(f" {name}").strip())


def test_a_run_in_the_terminal(tmp_path: Path) -> None:
    output = run(make(tmp_path / "a.db"))
    assert row(output, "began") == ["2023-11-14 22:13:20 UTC"]
    assert row(output, "answered") == ["200"]
    assert row(output, "failed") == ["20"]
    assert row(output, "accuracy") == ["90.00%"]
    assert row(output, "throughput (answers/s)") == ["10.1"]
    assert row(output, "latency, 95th percentile (ms)") == ["14.0"]
    assert row(output, "left at exit 4") == ["25.00%"]
    assert row(output, "dead letters") == ["1"]
    assert "thresholds: [0.8, 0.9] → [0.801, 0.9]" in output
    assert re.search(r"\+4.0 +policy/set", output)
    assert re.search(r"\+12.0 +device-2 +gone +2 ", output)
    assert re.search(r"device-1 +device +online +100 +50.00% +100.00% +77 +-2.0", output)
    assert re.search(r"device-2 +device +gone +100 +50.00% +80.00% +- +\+12.0", output)
    assert "\x1b" not in output
    assert "…" not in output


def test_two_databases_side_by_side(tmp_path: Path) -> None:
    output = run(make(tmp_path / "before.db"), make(tmp_path / "after.db", rate=20, right=8))
    assert row(output, "answered") == ["200", "400", "+100.0%"]
    assert row(output, "accuracy") == ["90.00%", "80.00%", "-10.00 points"]
    assert row(output, "failed") == ["20", "20", "same"]
    assert "Over time, side by side" in output
    assert re.search(r"\n +5 +10.0 +20.0 +\+100.0% ", output)
    assert "Devices, before" in output
    assert "Policies, after" in output


def test_two_pipelines_of_one_database(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", pipeline="cams")
    make(path, pipeline="doors", right=5)
    output = run(path, "--pipeline", "cams", "--pipeline", "doors")
    assert row(output, "accuracy") == ["90.00%", "50.00%", "-40.00 points"]
    assert "Policies, doors" in output
    assert row(run(path, "--pipeline", "doors"), "accuracy") == ["50.00%"]


def check_page(content: str) -> ET.Element:
    """A page that is well formed, loads nothing from anywhere and has every id once."""
    root = ET.fromstring(content)
    ids: Counter[str] = Counter()
    for element in root.iter():
        assert element.tag.rsplit("}")[-1] not in {"script", "img", "iframe", "object", "image"}
        for name, value in element.attrib.items():
            if name.rsplit("}")[-1] in {"href", "src"}:
                assert value.startswith("#") or value == "data:,", value
                assert not value.startswith("#") or f'id="{value[1:]}"' in content
            assert "//" not in value
            assert not re.search(r"url\((?!#)", value)
            if name == "id":
                ids[value] += 1
        if element.tag.endswith("style"):
            assert element.text is not None
            assert "@import" not in element.text
            assert not re.search(r"url\((?!#)|//", element.text)
    assert set(ids.values()) <= {1}
    return root


def headings(root: ET.Element) -> list[str]:
    return ["".join(found.itertext()) for found in root.iter() if found.tag.endswith(("}h2", "}h3"))]


def test_the_page_stands_alone(tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    assert f"wrote {page}" in run(make(tmp_path / "a.db"), "--html", page)
    root = check_page(page.read_text())
    found = headings(root)
    for title in ("Throughput", "Accuracy", "Latency", "Exits", "Devices", "Thresholds", "Policies"):
        assert title in found
    assert len([e for e in root.iter() if e.tag == "{http://www.w3.org/2000/svg}svg"]) == 6
    text = " ".join(root.itertext())
    assert "90.00%" in text
    assert "Dotted lines are changes of policy" in text
    assert "<script>alert(1)</script> &" in text
    content = page.read_text()
    assert "prefers-color-scheme: dark" in content
    assert "default-src 'none'" in content
    assert not re.search("#0[0-9a-b]0[0-9a-b]0[0-9a-b]", content), "a stand-in for a colour was left"


def test_the_page_of_two(tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    run(make(tmp_path / "before.db"), make(tmp_path / "<after>.db", policies=1), "--html", page)
    found = headings(check_page(page.read_text()))
    assert {"Exits, before", "Exits, <after>", "Over time, side by side", "Thresholds, before"} <= set(found)
    assert "Thresholds, <after>" not in found


def test_a_policy_that_changes_all_the_time(tmp_path: Path) -> None:
    path, page = tmp_path / "a.db", tmp_path / "out.html"
    make(path, policies=1)
    with Store(path, "demo") as store:
        changes = [
            (Policy(version=n, thresholds=(1 / n, 0.9)), "load", BEGAN + n / 50) for n in range(2, 502)
        ]
        store.write(Batch(policies=tuple(changes)))
    output = run(path, "--html", page, "--csv", tmp_path / "csv")
    assert "The 301 before these are left out; --csv writes all." in output
    assert "Dotted lines" not in page.read_text()
    assert "Thresholds" in headings(check_page(page.read_text()))
    with (tmp_path / "csv" / "policies.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 501


def test_csv_adds_up(tmp_path: Path) -> None:
    run(make(tmp_path / "a.db"), make(tmp_path / "b.db", rate=20), "--csv", tmp_path / "csv")

    def read(name: str) -> list[dict[str, str]]:
        with (tmp_path / "csv" / f"{name}.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    summary = {line["run"]: line for line in read("summary")}
    for name, answered in (("a", 200), ("b", 400)):
        stretches = [line for line in read("stretches") if line["run"] == name]
        assert int(summary[name]["answered"]) == answered == sum(int(s["answered"]) for s in stretches)
        assert sum(sum(json.loads(s["exits"])) for s in stretches) == answered
    assert [line["device"] for line in read("changes")][:3] == ["device-1", "device-2", "device-2"]
    assert read("failures")[0] == {"run": "a", "reason": HOSTILE, "frames": "20"}


def test_a_single_result_is_a_run(tmp_path: Path) -> None:
    path, page = tmp_path / "a.db", tmp_path / "out.html"
    with Store(path, "demo") as store:
        store.write(Batch(results=((Result("cam1", "1", "ok", 1, None, 0.9, 1, "d", 5.0), BEGAN),)))
    assert row(run(path, "--html", page), "throughput (answers/s)") == ["-"]
    check_page(page.read_text())


def test_only_failures_are_a_run(tmp_path: Path) -> None:
    path, page = tmp_path / "a.db", tmp_path / "out.html"
    lost = tuple((Result("cam1", str(n), "failed", reason="lost"), BEGAN + n) for n in range(5))
    with Store(path, "demo") as store:
        store.write(Batch(results=lost))
    assert row(run(path, "--html", page), "accuracy") == ["-"]
    check_page(page.read_text())


def _older(path: Path) -> None:
    make(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 0")


def _several(path: Path) -> None:
    make(path, pipeline="cams")
    make(path, pipeline="doors")


def _with(table: str, field: str, said: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        make(path)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"UPDATE {table} SET {field} = ?", (said,))

    return spoil


@pytest.mark.parametrize(
    ("prepare", "arguments", "kind", "words"),
    [
        (_with("devices", "state", "?"), [], StorageError, "is no JSON (Expecting value"),
        (_with("devices", "state", "[" * 50_000), [], StorageError, "delete it from the table devices"),
        (_with("policies", "body", "[]"), [], StorageError, "is no JSON object: delete it from the table"),
        (lambda _path: None, [], StorageError, "unable to open database file"),
        (lambda path: path.write_text("no database " * 99), [], StorageError, "file is not a database"),
        (_older, [], StorageError, "no coordinator's database of version 1: the file has version 0"),
        (lambda path: Store(path, "demo").close(), [], ConfigError, "no results in it yet"),
        (lambda path: Store(path, "demo").close(), ["--pipeline", "demo"], ConfigError, "none at all"),
        (_several, [], ConfigError, "results of pipelines cams, doors; name one with --pipeline"),
        (_several, ["--pipeline", "x"], ConfigError, "no results of pipeline x; there are some of cams"),
        (make, ["--pipeline", "a", "--pipeline", "b", "--pipeline", "c"], ConfigError, "at most two runs"),
        (make, ["--html", "no/such/folder.html"], ConfigError, "name a file that can be written"),
        (make, ["--csv", "/dev/null/x"], ConfigError, "name a folder that can be written"),
    ],
)
def test_what_cannot_be_reported(
    prepare: object, arguments: list[str], kind: type[MdiError], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.db"
    prepare(path)  # type: ignore[operator]
    with pytest.raises(kind, match=re.escape(words)):
        run(path, *arguments)


def test_a_file_that_may_only_be_read_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    make(path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with closing(Database(path, STORE, read_only=True)) as database, database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM results").scalar_one() == 220
        assert list(tmp_path.iterdir()) == [path]


def test_the_exit_codes(tmp_path: Path) -> None:
    done = mqtt_mdi("report", "nowhere.db", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (5, "")
    assert "Traceback" not in done.stderr
    Store(tmp_path / "a.db", "demo").close()
    assert mqtt_mdi("report", "a.db", cwd=tmp_path).returncode == 2


def test_without_what_draws_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("page", "figures"):
        monkeypatch.delitem(sys.modules, f"mqtt_mdi.reporting.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"--html needs matplotlib: pip install 'mqtt-mdi\[report\]'"):
        run(make(tmp_path / "a.db"), "--html", tmp_path / "out.html")


def test_differences_of_policies() -> None:
    before = Policy(version=1, thresholds=(0.5,), placement={"d": (1, 2)}).model_dump(mode="json")
    after = Policy(version=2, thresholds=(0.6,), placement={"d": (1,), "e": (2,)}).model_dump(mode="json")
    assert differences(before, after) == [
        "placement.d: [1, 2] → [1]",
        "placement.e: none → [2]",
        "thresholds: [0.5] → [0.6]",
    ]
    assert differences(after, after) == []


@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True, scope="session")
def test_a_database_that_is_being_written(shared_pipeline: Pipeline, tmp_path: Path) -> None:
    where = ("--broker", shared_pipeline.broker.address, "--pipeline", shared_pipeline.topics.pipeline)
    sent = mqtt_mdi("sensor", *where, "--id", "reported", "--frames", "40", cwd=tmp_path)
    assert sent.returncode == 0, sent.stderr
    shared_pipeline.client.wait_for_last(shared_pipeline.topics.metrics, lambda said: said["answered"] >= 40)
    page = tmp_path / "out.html"
    done = mqtt_mdi("report", str(shared_pipeline.database), "--html", str(page), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(row(done.stdout, "answered")[0].replace(",", "")) >= 40
    assert re.search(r" device-2 +device +online", done.stdout)
    check_page(page.read_text())
