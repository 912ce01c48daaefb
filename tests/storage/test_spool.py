"""The spool: what was committed is there at the next start, and each frame has one answer."""

import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mqtt_mdi.core.types import FrameKey
from mqtt_mdi.errors import StorageError
from mqtt_mdi.storage.spool import KeptAnswer, KeptFrame, Spool

REMEMBERED = 5


def key(number: int) -> FrameKey:
    return FrameKey("cam1", str(number))


def frame(number: int, data: bytes = b"picture") -> KeptFrame:
    return KeptFrame(key(number), "image/png", data, "mine/answers", b"\xffid")


def answer(number: int) -> KeptAnswer:
    return KeptAnswer(key(number), b'{"label":%d}' % number, "mine/answers", b"\xffid")


def spool(path: Path, pipeline: str = "demo") -> Spool:
    return Spool(path / "source.spool", pipeline, REMEMBERED)


def test_a_frame_comes_back_as_it_was_until_it_is_answered(tmp_path: Path) -> None:
    with closing(spool(tmp_path)) as first:
        first.keep(frame(1))
        first.keep(KeptFrame(key(2), "image/jpeg", b"\0\xff", None, None))
        assert first.commit() == []
    with closing(spool(tmp_path)) as second:
        one, two = second.owed()
        assert one == KeptFrame(*(getattr(frame(1), n) for n in frame(1).__slots__[:-1]), starts=1)  # type: ignore[attr-defined]
        assert (two.key, two.data, two.response_topic, two.correlation) == (key(2), b"\0\xff", None, None)
        second.answer(answer(1))
        assert second.commit() == [answer(1)]
        assert [kept.key for kept in second.owed()] == [key(2)]
    with closing(spool(tmp_path)) as third:
        assert [kept.starts for kept in third.owed()] == [2]
        assert third.unsent() == [answer(1)]
        assert third.answered() == [key(1)]
        assert third.answer_to(key(2)) is None
        third.sent(key(1))
        third.commit()
        assert third.unsent() == []
        assert third.answer_to(key(1)) == answer(1).result
        assert third.answered() == [key(1)]


def test_a_frame_that_comes_again_is_no_second_frame(tmp_path: Path) -> None:
    with closing(spool(tmp_path)) as kept:
        kept.keep(frame(1))
        kept.keep(frame(1, b"another"))
        kept.commit()
        kept.keep(frame(1, b"another"))
        kept.commit()
        assert [one.data for one in kept.owed()] == [b"picture"]
        kept.answer(answer(1))
        kept.commit()
        kept.keep(frame(1))
        kept.commit()
        assert kept.owed() == []


def test_a_refused_frame_is_gone_and_an_answered_one_stays(tmp_path: Path) -> None:
    with closing(spool(tmp_path)) as kept:
        kept.keep(frame(1))
        kept.drop(key(1))
        assert not kept.untidy
        kept.keep(frame(2))
        kept.keep(frame(3))
        kept.commit()
        kept.drop(key(2))
        kept.answer(answer(3))
        kept.drop(key(3))
        assert kept.commit() == [answer(3)]
        kept.drop(key(3))
        kept.commit()
        assert (kept.owed(), kept.unsent(), kept.answered()) == ([], [answer(3)], [key(3)])


def test_no_more_names_are_kept_than_asked_for(tmp_path: Path) -> None:
    with closing(spool(tmp_path)) as kept:
        kept.keep(frame(0))
        for number in range(1, 40):
            kept.keep(frame(number))
            kept.answer(answer(number))
            kept.commit()
            kept.sent(key(number))
        kept.commit()
        assert kept.answered() == [key(number) for number in range(35, 40)]
        assert [one.key for one in kept.owed()] == [key(0)]


def test_subscriptions_of_earlier_starts_are_remembered(tmp_path: Path) -> None:
    wanted = (["frames/cam1", "frames/cam2"], ["frames/+"], ["frames/cam1"])
    outdated = ([], ["frames/cam1", "frames/cam2"], ["frames/+", "frames/cam2"])
    for topics, others in zip(wanted, outdated, strict=True):
        with closing(spool(tmp_path)) as opened:
            assert opened.outdated(topics) == others
    with closing(spool(tmp_path, "other")) as opened:
        assert opened.outdated(["frames/cam3"]) == []


def test_pipelines_do_not_see_each_other(tmp_path: Path) -> None:
    with closing(spool(tmp_path)) as kept:
        kept.keep(frame(1))
        kept.commit()
    with closing(spool(tmp_path, "other")) as other:
        assert other.owed() == []
        other.keep(frame(1))
        other.answer(answer(1))
        other.commit()
    with closing(spool(tmp_path)) as kept:
        assert [one.key for one in kept.owed()] == [key(1)]


def test_a_commit_waits_for_the_disk(tmp_path: Path) -> None:
    with closing(spool(tmp_path)) as kept, kept.reading() as connection:
        pragmas = {
            n: connection.exec_driver_sql(f"PRAGMA {n}").scalar() for n in ("synchronous", "journal_mode")
        }
        assert pragmas == {"synchronous": 2, "journal_mode": "wal"}


def test_two_cannot_have_one_spool(tmp_path: Path) -> None:
    with closing(spool(tmp_path)), pytest.raises(StorageError, match="another program keeps it locked"):
        spool(tmp_path)
    spool(tmp_path).close()


def _text(path: Path) -> None:
    path.write_text("shopping: milk, bread\n" * 100)


def _other_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (body TEXT)")


def _later_version(path: Path) -> None:
    Spool(path, "demo", REMEMBERED).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def _damaged(path: Path) -> None:
    with closing(Spool(path, "demo", REMEMBERED)) as kept:
        for number in range(200):
            kept.keep(frame(number))
        kept.commit()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\x5a" * (len(content) - 4096)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_text, "no SQLite database: move it away"),
        (_other_program, "no spool of version 2: .*another program made it"),
        (_later_version, "no spool of version 2: .*Another version of mqtt-mdi"),
        (_damaged, "damaged"),
    ],
)
def test_what_is_no_spool_is_refused_and_left_alone(
    tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    path = tmp_path / "source.spool"
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(StorageError, match=words):
        spool(tmp_path)
    assert path.read_bytes() == before


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere/source\.spool: .*check that it and its folder exist"):
        spool(tmp_path / "nowhere")


def test_a_disk_that_is_full_keeps_nothing_of_a_commit_and_takes_it_later(tmp_path: Path) -> None:
    """The largest a file may grow is a limit that any user can set; to SQLite it is a disk that fails."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(spool(tmp_path)) as kept:
        kept.keep(frame(1))
        kept.commit()
        kept.keep(frame(2, b"x" * 2**20))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, hard))
        try:
            with pytest.raises(StorageError, match=r"source\.spool"):
                kept.commit()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert [one.key for one in kept.owed()] == [key(1)]
        kept.commit()
        assert [one.key for one in kept.owed()] == [key(1), key(2)]


_KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[2]]
from test_spool import answer, frame, key, spool
kept = spool(Path(sys.argv[1]))
for number in range(4):
    kept.keep(frame(number))
kept.answer(answer(0))
kept.answer(answer(1))
kept.commit()
kept.sent(key(0))
kept.commit()
kept.keep(frame(4))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_is_killed_leaves_what_it_committed(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path), here], check=False)
    assert done.returncode == -9
    with closing(spool(tmp_path)) as kept:
        assert [one.key for one in kept.owed()] == [key(2), key(3)]
        assert kept.unsent() == [answer(1)]
        assert kept.answered() == [key(0), key(1)]


NUMBERS = st.integers(0, 7)


class Crashes(RuleBasedStateMachine):
    """A source that does anything in any order, and is killed at any time: `safe` is what must be left."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.spool = Spool(Path(self.folder.name) / "source.spool", "demo", 100)
        self.safe: dict[int, str] = {}
        self.now: dict[int, str] = {}

    @rule(number=NUMBERS)
    def keep(self, number: int) -> None:
        self.spool.keep(frame(number))
        self.now.setdefault(number, "owed")

    @rule(number=NUMBERS)
    def answer(self, number: int) -> None:
        if self.now.get(number) == "owed":
            self.spool.answer(answer(number))
            self.spool.drop(key(number))
            self.now[number] = "unsent"

    @rule(number=NUMBERS)
    def drop(self, number: int) -> None:
        if self.now.get(number) == "owed":
            self.spool.drop(key(number))
            del self.now[number]

    @rule(number=NUMBERS)
    def sent(self, number: int) -> None:
        if self.safe.get(number) == self.now.get(number) == "unsent":
            self.spool.sent(key(number))
            self.now[number] = "done"

    @rule()
    def commit(self) -> None:
        told = {int(one.key.frame_id) for one in self.spool.commit()}
        became = {n for n, state in self.now.items() if state == "unsent" and self.safe.get(n) != "unsent"}
        assert told == became
        self.safe = dict(self.now)

    @rule()
    def killed(self) -> None:
        self.spool.close()
        self.spool = Spool(Path(self.folder.name) / "source.spool", "demo", 100)
        self.now = dict(self.safe)

    @invariant()
    def holds_what_is_safe(self) -> None:
        def among(*states: str) -> set[FrameKey]:
            return {key(number) for number, state in self.safe.items() if state in states}

        assert {one.key for one in self.spool.owed()} == among("owed")
        assert {one.key for one in self.spool.unsent()} == among("unsent")
        assert set(self.spool.answered()) == among("unsent", "done")

    def teardown(self) -> None:
        self.spool.close()
        self.folder.cleanup()


TestCrashes = Crashes.TestCase
TestCrashes.settings = settings(max_examples=20, stateful_step_count=25)
