"""The table of rights and what is made of it; test_access.py holds it against a broker."""

from pathlib import Path

import pytest
from live import mqtt_mdi

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.wire.access import RIGHTS, check_users, mosquitto_acl
from mqtt_mdi.wire.home_assistant import BIRTH, Discovery
from mqtt_mdi.wire.topics import DROPPED, Topics

EVERYBODY = {"demo": {role: [f"{role}-1"] for role in RIGHTS}}

OUTSIDE = {BIRTH, DROPPED, Discovery("demo").every}


def test_every_right_is_to_a_topic_of_the_protocol() -> None:
    topics = Topics("demo")
    for line in mosquitto_acl(EVERYBODY).splitlines():
        if line.startswith("topic "):
            _, access, topic = line.split()
            assert access in ("read", "write")
            if topic in OUTSIDE:
                continue
            stage = topic.replace("stage/+", "stage/1").replace("model/#", "model/stage/1")
            topics.parse(stage.replace("+", "name"))


def test_each_user_is_named_once() -> None:
    users = [line for line in mosquitto_acl(EVERYBODY).splitlines() if line.startswith("user ")]
    assert users == [f"user {role}-1" for role in RIGHTS]


@pytest.mark.parametrize(
    ("users", "message"),
    [
        ({"demo": {"device": ["a", "a"]}}, "user a is named twice"),
        ({"demo": {"device": ["a"]}, "other": {"viewer": ["a"]}}, "user a is named twice"),
        ({"demo": {"device": ["a b"]}}, "device 'a b' may hold"),
        ({"demo": {"device": ["#"]}}, "device '#' may hold"),
        ({"demo": {"device": ["a\ntopic #"]}}, "may hold"),
        ({"de/mo": {"device": ["a"]}}, "pipeline 'de/mo' may hold"),
    ],
)
def test_names_that_do_not_fit(users: dict[str, dict[str, list[str]]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_users(users)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, "is no list of users by pipeline and role") for text in ("", "demo", "demo: {king: [a]}")),
        *(
            (text, "is no list of users by pipeline and role")
            for text in ("demo: {device: a}", "a: {device: [1]}")
        ),
        ("{", "cannot read"),
        ("a: &a {device: [b]}\nc: *a", "line 2 has an alias: write out what it stands for"),
    ],
)
def test_a_list_of_users_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "users.yaml"
    file.write_text(text)
    done = mqtt_mdi("users", str(file), "--out", str(tmp_path / "out"), "--broker", "mqtts://h")
    assert message in " ".join(done.stderr.split())
    assert done.returncode == 2
    assert not (tmp_path / "out").exists()


def test_settings_follow_the_broker_and_may_be_moved_away(tmp_path: Path) -> None:
    file, out = tmp_path / "users.yaml", tmp_path / "out"
    file.write_text("demo: {device: [pi-1], operator: [ann]}")

    def run(broker: str) -> tuple[str, str]:
        done = mqtt_mdi("users", str(file), "--out", str(out), "--broker", broker)
        assert done.returncode == 0, done.stderr
        return (out / "passwords").read_text(), (out / "ann.env").read_text()

    passwords, settings = run("mqtts://one")
    assert (out / "pi-1.env").read_text().endswith("\nMDI_PIPELINE=demo\nMDI_ID=pi-1\n")
    (out / "pi-1.env").unlink()
    again, moved = run("mqtts://two:1")
    assert again == passwords
    assert moved == settings.replace("@one:8883", "@two:1")
    assert not (out / "pi-1.env").exists()
    secret = settings.split("ann:")[1].split("@")[0]
    assert len(secret) == 24
    assert secret not in passwords
    assert {oct(path.stat().st_mode & 0o777) for path in out.iterdir()} == {"0o600"}
