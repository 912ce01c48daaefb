"""Who may write and read what: every role tries every topic, at a Mosquitto configured as shipped."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from live import Broker, mqtt_mdi, running, until
from paho.mqtt import client as paho
from paho.mqtt.enums import MQTTProtocolVersion
from secured import OBSERVER, Peer, Secured, name_users, secured_broker

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.runtime.client import Connection
from mqtt_mdi.wire.topics import DROPPED

USERS = """
demo:
  device: [device-1]
  source: [source-1]
  sensor: [cam1]
  coordinator: [coordinator]
  operator: [ann]
  viewer: [screen]
  announcer: [teller]
  home-assistant: [home]
other:
  device: [device-9]
"""
ROLES = ["device-1", "source-1", "cam1", "coordinator", "ann", "screen", "teller", "home"]

# What protocol.md says, written down once more: w may write, r may read; below mdi/v1/ or, after /, the root.
EXPECTED = """
                                          device-1  source-1  cam1  coordinator  ann  screen  teller  home
demo/frames/cam1                          .         r         w     .            .    .       .       .
demo/frames/cam2                          .         r         .     .            .    .       .       .
demo/truth/cam1                           .         .         w     r            .    .       .       .
demo/truth/cam2                           .         .         .     r            .    .       .       .
demo/results/cam1                         .         w         r     r            r    r       r       r
demo/results/cam2                         .         w         .     r            r    r       r       r
demo/stage/1/device-1                     rw        w         .     .            .    .       .       .
demo/stage/2/device-2                     w         w         .     .            .    .       .       .
demo/stage/1/source-1                     w         rw        .     .            .    .       .       .
demo/stage/1/any                          rw        rw        .     .            .    .       .       .
demo/exits/source-1                       w         rw        .     .            .    .       .       .
demo/exits/source-2                       w         w         .     .            .    .       .       .
demo/devices/device-1/state               rw        r         r     r            r    r       r       r
demo/devices/device-2/state               r         r         r     r            r    r       r       r
demo/devices/source-1/state               r         rw        r     r            r    r       r       r
demo/devices/cam1/state                   r         r         r     r            r    r       r       r
demo/policy                               r         r         .     rw           r    r       r       r
demo/policy/set                           .         .         .     r            w    .       .       w
demo/policy/result                        .         .         .     w            r    r       r       r
demo/model/manifest                       r         r         r     w            .    .       .       .
demo/model/stage/1                        r         r         .     w            .    .       .       .
demo/metrics                              .         .         .     w            r    r       r       r
demo/coordinator/state                    r         r         .     rw           r    r       r       r
demo/deadletter/device-1                  w         .         .     r            r    .       .       .
demo/deadletter/device-2                  .         .         .     r            r    .       .       .
demo/deadletter/source-1                  .         w         .     r            r    .       .       .
demo/deadletter/coordinator               .         .         .     rw           r    .       .       .
demo/deadletter/cam1                      .         .         .     r            r    .       .       .
demo/anything                             .         .         .     .            .    .       .       .
demo                                      .         .         .     .            .    .       .       .
other/frames/cam1                         .         .         .     .            .    .       .       .
other/truth/cam1                          .         .         .     .            .    .       .       .
other/results/cam1                        .         .         .     .            .    .       .       .
other/stage/1/device-1                    .         .         .     .            .    .       .       .
other/stage/1/any                         .         .         .     .            .    .       .       .
other/exits/source-1                      .         .         .     .            .    .       .       .
other/devices/device-1/state              .         .         .     .            .    .       .       .
other/policy                              .         .         .     .            .    .       .       .
other/policy/set                          .         .         .     .            .    .       .       .
other/policy/result                       .         .         .     .            .    .       .       .
other/model/manifest                      .         .         .     .            .    .       .       .
other/model/stage/1                       .         .         .     .            .    .       .       .
other/metrics                             .         .         .     .            .    .       .       .
other/coordinator/state                   .         .         .     .            .    .       .       .
other/deadletter/device-1                 .         .         .     .            .    .       .       .
/homeassistant/device/mdi-demo/x/config   .         .         .     .            .    .       rw      rw
/homeassistant/status                     .         .         .     .            .    .       r       rw
/homeassistant/device/mdi-other/x/config  .         .         .     .            .    .       .       .
/homeassistant/device/x/config            .         .         .     .            .    .       .       .
/homeassistant/sensor/mdi-demo/x/config   .         .         .     .            .    .       .       .
"""


def expected() -> dict[tuple[str, str], str]:
    """What each user may do on each topic, in full."""
    header, *rows = [line.split() for line in EXPECTED.strip().splitlines()]
    assert header == ROLES
    return {
        (topic[1:] if topic.startswith("/") else f"mdi/v1/{topic}", user): cell
        for topic, *cells in rows
        for user, cell in zip(header, cells, strict=True)
    }


TOPICS = [*dict.fromkeys(topic for topic, _ in expected()), "anything", "$SYS/broker/uptime"]


@pytest.fixture(scope="module")
def secrets(mosquitto: Broker, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001 -- skips
    return tmp_path_factory.mktemp("secrets")


@pytest.fixture
def secured(secrets: Path) -> Iterator[Secured]:
    with secured_broker(secrets, USERS) as broker:
        yield broker


@pytest.fixture
def enter(secured: Secured) -> Iterator[Callable[..., Peer]]:
    with ExitStack() as stack:
        yield lambda user, *more: stack.enter_context(Peer(secured.url(user), *more))


@pytest.mark.parametrize("version", [paho.MQTTv311, paho.MQTTv5])
def test_every_role_may_do_just_what_it_must(
    enter: Callable[..., Peer], version: MQTTProtocolVersion
) -> None:
    observer = enter(OBSERVER, version)
    observer.hear("#", "$SYS/#")
    peers = {user: enter(user, version) for user in ROLES}
    for user, peer in peers.items():
        peer.publish(f"by {user}".encode(), *TOPICS)
    observer.hear("end")
    written = {
        (topic, user) for topic, data in observer.heard for user in ROLES if data == f"by {user}".encode()
    }
    assert any(topic == "$SYS/broker/uptime" for topic, _ in observer.heard)

    for peer in peers.values():
        peer.hear("#", "$SYS/#", *TOPICS)
    observer.publish(b"live", *TOPICS[:-1])
    observer.publish(b"kept", *TOPICS[:-1], retain=True)
    for peer in peers.values():
        peer.hear("end")
    live = {(topic, user) for user, peer in peers.items() for topic, data in peer.heard if data == b"live"}
    for peer in peers.values():
        peer.close()
    late = {user: enter(user, version) for user in ROLES}
    for peer in late.values():
        peer.hear("#", "$SYS/#", *TOPICS)
    for peer in late.values():
        peer.hear("end")
    heard = {(topic, user) for user, peer in late.items() for topic, _ in peer.heard}
    told = {(topic, user) for topic, user in heard if topic.startswith("$SYS")}

    found = {
        (topic, user): "r" * ((topic, user) in live) + "w" * ((topic, user) in written) or "."
        for topic in TOPICS
        for user in ROLES
    }
    wanted = expected()
    assert {cell: can for cell, can in found.items() if can != wanted.get(cell, ".")} == {}
    assert heard - told == live
    assert told <= {(DROPPED, "coordinator")}


def test_no_wildcard_and_no_share_leads_around_it(enter: Callable[..., Peer]) -> None:
    observer, sensor = enter(OBSERVER), enter("cam1")
    sensor.hear(
        "+/+/+/+/+",
        "mdi/v1/+/policy",
        "mdi/v1/demo/results/+",
        "$share/x/mdi/v1/demo/results/cam2",
        "$share/x/#",
    )
    observer.publish(
        b"secret", *(f"mdi/v1/demo/{topic}" for topic in ("results/cam1", "results/cam2", "policy"))
    )
    sensor.hear("end")
    assert {topic for topic, _ in sensor.heard} == {"mdi/v1/demo/results/cam1"}


def test_the_last_will_is_checked_too(secured: Secured, enter: Callable[..., Peer]) -> None:
    observer = enter(OBSERVER)
    observer.hear("#")
    for user, topic in (("device-1", "devices/device-2/state"), ("device-1", "devices/device-1/state")):
        client = paho.Client(protocol=paho.MQTTv5, callback_api_version=paho.CallbackAPIVersion.VERSION2)
        url = secured.url(user)
        client.username_pw_set(url.username, url.password)
        client.tls_set(str(secured.ca))
        client.will_set(f"mdi/v1/demo/{topic}", b"gone", 1)
        client.connect(url.host, url.port)
        client.loop_start()
        until(client.is_connected)
        client.loop_stop()
        client.socket().close()
    until(lambda: ("mdi/v1/demo/devices/device-1/state", b"gone") in observer.heard)
    assert [topic for topic, _ in observer.heard] == ["mdi/v1/demo/devices/device-1/state"]


def test_nobody_can_take_anothers_connection(enter: Callable[..., Peer]) -> None:
    observer = enter(OBSERVER)
    observer.hear("#")
    coordinator = enter("coordinator", paho.MQTTv5, "mdi.demo.coordinator")
    thief = enter("cam1", paho.MQTTv5, "mdi.demo.coordinator")
    thief.publish(b"thief", "mdi/v1/demo/truth/cam1")
    coordinator.publish(b"still here", "mdi/v1/demo/metrics")
    observer.hear("end")
    assert [data for _, data in observer.heard] == [b"thief", b"still here"]
    assert coordinator.lost == 0


def test_what_a_process_may_not_do_is_said(secured: Secured, caplog: pytest.LogCaptureFixture) -> None:
    with closing(Connection(secured.url("cam1"), "", own="mdi/v1/demo/frames/cam2")) as opened:
        for _ in range(3):
            opened.publish("mdi/v1/demo/results/cam1", b"", qos=1)
        until(lambda: opened.poll(0.1) is not None and opened.connected and not opened.unsent())
        assert caplog.text.count("does not take what we publish on mdi/v1/demo/results/cam1: Not auth") == 1
        opened.publish("mdi/v1/demo/frames/cam2", b"", qos=1)
        with pytest.raises(ConfigError, match="publish on mdi/v1/demo/frames/cam2; check the user's role"):
            until(lambda: opened.poll(0.1) is None)


@pytest.mark.parametrize(
    ("user", "command", "topic"),
    [
        (
            "device-1",
            ("device", "--id", "device-2", "--bundle", str(SHIPPED_BUNDLE)),
            "devices/device-2/state",
        ),
        ("screen", ("policy", "set", "{}"), "policy/set"),
    ],
)
def test_a_process_of_the_wrong_user_ends(
    secured: Secured, tmp_path: Path, user: str, command: tuple[str, ...], topic: str
) -> None:
    ended = mqtt_mdi(*command, cwd=tmp_path, env=secured.environment(user))
    assert f"it does not let this user publish on mdi/v1/demo/{topic}" in ended.stderr
    assert ended.returncode == 2


def test_nobody_has_others_write_what_they_may_not(
    secured: Secured, tmp_path: Path, enter: Callable[..., Peer]
) -> None:
    observer, sensor, operator = enter(OBSERVER), enter("cam1"), enter("ann")
    observer.hear("#")
    topics = [
        f"mdi/v1/demo/{topic}"
        for topic in (
            "results/cam2",
            "results/cam1/more",
            "stage/1/device-1",
            "exits/source-1",
            "devices/source-1/state",
            "deadletter/source-1",
            "policy",
            "metrics",
        )
    ]
    with ExitStack() as stack:
        commands = {"coordinator": ("coordinator", "--db", "mdi.db"), "source-1": ("source",)}
        for user, command in commands.items():
            stack.enter_context(running(tmp_path, *command, name=user, env=secured.environment(user)))
        until(lambda: [data for topic, data in observer.heard if b'"role":"source","stages":[]' in data])
        until(lambda: [data for topic, data in observer.heard if topic == "mdi/v1/demo/policy"])
        asked = {topic: f"ask-{number}" for number, topic in enumerate([*topics, "mdi/v1/demo/results/cam1"])}
        for topic, token in asked.items():
            properties = {"ResponseTopic": topic, "CorrelationData": token.encode()}
            sensor.publish(b"no picture", "mdi/v1/demo/frames/cam1", **properties)
            operator.publish(b"[]", "mdi/v1/demo/policy/set", **properties)
        sensor.publish(b"no picture", "mdi/v1/demo/frames/cam1", ResponseTopic="mdi/v1/demo/results/cam1")
        operator.publish(b"[]", "mdi/v1/demo/policy/set")
        until(lambda: sum(topic.endswith("/results/cam1") for topic, _ in observer.heard) == 2)
        until(lambda: [topic for topic, _ in observer.heard if topic.endswith("policy/result")])
        observer.hear("end")
    answers = {topic for topic, data in observer.heard if b'"refused: ' in data or b'"accepted"' in data}
    assert answers == {"mdi/v1/demo/results/cam1", "mdi/v1/demo/policy/result"}


def test_who_is_no_longer_named_is_shut_out(secured: Secured, enter: Callable[..., Peer]) -> None:
    observer, before = enter(OBSERVER), enter("device-9")
    observer.hear("#")
    before.publish(b"1", "mdi/v1/other/devices/device-9/state")
    kept = secured.environment("device-1")
    name_users(secured.folder, USERS.replace("device-9", "device-8"), secured.port)
    secured.reload()
    enter("device-8").publish(b"2", "mdi/v1/other/devices/device-8/state")
    until(lambda: ("mdi/v1/other/devices/device-8/state", b"2") in observer.heard)
    if not before.lost:
        before.publish(b"3", "mdi/v1/other/devices/device-9/state")
    observer.hear("end")
    assert [data for _, data in observer.heard] == [b"1", b"2"]
    assert secured.environment("device-1") == kept
    assert not (secured.folder / "device-9.env").exists()


def test_a_whole_pipeline_answers_frames(
    secured: Secured, tmp_path: Path, enter: Callable[..., Peer]
) -> None:
    observer = enter(OBSERVER)
    observer.hear("mdi/v1/demo/#")
    commands = {
        "coordinator": ("coordinator", "--db", "mdi.db"),
        "source-1": ("source", "--stages", "1"),
        "device-1": ("device",),
        "cam1": ("sensor", "--frames", "50"),
    }
    keys = {
        "MDI_SIGN_WITH": str(secured.folder / "model.key"),
        "MDI_MODEL_KEY": str(secured.folder / "model.pub"),
    }
    with ExitStack() as stack:
        running_now = {
            user: stack.enter_context(
                running(tmp_path, *command, name=user, env=secured.environment(user) | keys)
            )
            for user, command in commands.items()
        }
        sensor = running_now["cam1"]
        assert sensor.ended() == 0, [process.said() for process in running_now.values()]
        assert "50 frames sent, 50 answered" in sensor.said()
        patched = stack.enter_context(
            running(tmp_path, "policy", "set", '{"window": 8}', env=secured.environment("ann"))
        )
        assert patched.ended() == 0, patched.said()
        assert "accepted as version 2" in patched.said()
        for user in ("source-1", "device-1", "coordinator"):
            assert running_now[user].stop() == 0
    # Nobody was kept from anything that it does in the ordinary way of things.
    assert all("does not take" not in process.said() for process in running_now.values())
    assert all("UNSIGNED" not in process.said() for process in running_now.values())
    answers = [data for topic, data in observer.heard if topic == "mdi/v1/demo/results/cam1"]
    assert len(answers) == 50
    assert {topic.split("/")[3] for topic, _ in observer.heard} == {
        "frames",
        "truth",
        "results",
        "stage",
        "exits",
        "devices",
        "policy",
        "model",
        "metrics",
        "coordinator",
    }
