import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mqtt_mdi.errors import StorageError
from mqtt_mdi.storage.database import Database
from mqtt_mdi.storage.store import Store, read_summary
from mqtt_mdi.storage.tables import STORE


def pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def test_a_new_file_is_in_wal_mode_and_says_its_version(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    Database(path, STORE).close()
    with closing(sqlite3.connect(path)) as connection:
        assert pragma(connection, "journal_mode") == "wal"
        assert pragma(connection, "user_version") == STORE.version


def test_every_connection_is_set_up(tmp_path: Path) -> None:
    with (
        closing(Database(tmp_path / "a.db", STORE, busy_timeout_s=0.25)) as database,
        database.writing() as connection,
    ):
        names = ("synchronous", "foreign_keys", "busy_timeout")
        assert [connection.exec_driver_sql(f"PRAGMA {n}").scalar_one() for n in names] == [1, 1, 250]


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    with Store(path, "demo") as store:
        assert store.totals().answered == 0


@pytest.mark.parametrize("name", ["with space.db", "what?.db", "50%.db", "#1.db", "ä.db"])
def test_any_file_name_can_be_opened(tmp_path: Path, name: str) -> None:
    with Store(tmp_path / name, "demo"):
        assert (tmp_path / name).exists()
        assert read_summary(tmp_path / name, "demo")["frames"] == 0


def test_an_exception_undoes_the_transaction(tmp_path: Path) -> None:
    insert = "INSERT INTO truths (pipeline, sensor, frame_id, label) VALUES ('demo', 'cam1', '1', 3)"
    with closing(Database(tmp_path / "a.db", STORE)) as database:
        with pytest.raises(StorageError, match="UNIQUE"), database.writing() as connection:
            connection.exec_driver_sql(f"{insert}, ('demo', 'cam1', '1', 4)")
        with database.writing() as connection:
            connection.exec_driver_sql(insert)
        with database.reading() as connection:
            assert connection.exec_driver_sql("SELECT label FROM truths").scalars().all() == [3]


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "newer.db"
    Database(path, STORE).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {STORE.version + 1}")
    with pytest.raises(StorageError, match=r"the file has version 2\. Another version"):
        Store(path, "demo")
    with pytest.raises(StorageError, match=r"the file has version 2\. Another version"):
        read_summary(path, "demo")


@pytest.mark.parametrize("version", [0, STORE.version])
def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path, version: int) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (body TEXT)")
        connection.execute(f"PRAGMA user_version = {version}")
    before = path.read_bytes()
    with pytest.raises(StorageError, match=r"lacks .*results.* another program made it"):
        Store(path, "demo")
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("shopping: milk, bread\n" * 100)
    with pytest.raises(StorageError, match=r"notes\.txt: .*no SQLite database: move it away"):
        Store(path, "demo")
    assert path.read_text() == "shopping: milk, bread\n" * 100


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere/a\.db: .*check that it and its folder exist"):
        Store(tmp_path / "nowhere" / "a.db", "demo")


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be opened"):
        Store(tmp_path, "demo")


def test_reading_never_makes_a_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="check that it and its folder exist"):
        read_summary(tmp_path / "missing.db", "demo")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    Database(path, STORE).close()
    with (
        closing(Database(path, STORE, read_only=True)) as database,
        pytest.raises(StorageError, match="may only be read"),
        database.writing() as connection,
    ):
        connection.exec_driver_sql("DELETE FROM results")
