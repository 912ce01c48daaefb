import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from live import Broker, Client, until

from mqtt_mdi.errors import ConfigError, ProtocolError
from mqtt_mdi.runtime.client import Connection
from mqtt_mdi.runtime.message import Message
from mqtt_mdi.runtime.shell import Shell, new_boot
from mqtt_mdi.wire.topics import Topic, Topics


class Recorder(Shell):
    """A shell that only remembers what happened to it."""

    def __init__(self, broker: Broker, pipeline: str) -> None:
        connection = Connection(broker.url, f"recorder-{pipeline}")
        super().__init__("recorder", Topics(pipeline), connection)
        self.story: list[str] = []

    def connected(self) -> None:
        self.connection.subscribe(f"{self.topics.root}/#", qos=1)
        self.connection.publish(self.topics.policy_set, b"subscribed", qos=1)

    def received(self, message: Message, topic: Topic) -> None:
        if topic.kind == "deadletter":
            return
        self.story.append(f"{topic.kind} {message.payload.decode()}")
        if message.payload == b"bad":
            raise ProtocolError("this is bad")
        if message.payload == b"worse":
            raise KeyError("a fault of ours")

    def turn_until(self, *story: str) -> None:
        def told() -> bool:
            self.turn()
            return self.story[-len(story) :] == [*story]

        until(told, lambda: self.story)


@pytest.fixture
def shell(mosquitto: Broker, names: Iterator[str]) -> Iterator[Recorder]:
    shell = Recorder(mosquitto, next(names))
    with closing(shell.connection):
        shell.turn_until("policy/set subscribed")
        yield shell


def test_timers_fire_in_order_and_the_last_setting_counts(shell: Recorder) -> None:
    now = shell.now()
    shell.set_timer("b", now + 0.02, shell.story.append)
    shell.set_timer("moved", now + 0.01, lambda _key: shell.story.append("too early"))
    shell.set_timer("a", now + 0.01, shell.story.append)
    shell.set_timer("moved", now + 0.03, shell.story.append)
    shell.set_timer("past", now - 1, shell.story.append)
    shell.turn_until("past", "a", "b", "moved")
    assert shell.now() >= now + 0.03


def test_a_timer_may_set_itself_again(shell: Recorder) -> None:
    def fired(key: str) -> None:
        shell.story.append(f"{key} {len(shell.story)}")
        if len(shell.story) < 4:
            shell.set_timer(key, shell.now() + 0.001, fired)

    shell.story.clear()
    shell.set_timer("again", shell.now(), fired)
    shell.turn_until("again 0", "again 1", "again 2", "again 3")
    assert not shell._due


def test_calls_from_other_threads_run_in_the_loop(shell: Recorder) -> None:
    ran_in: list[int] = []

    def call() -> None:
        for _ in range(100):
            shell.call(lambda: ran_in.append(threading.get_ident()))
        shell.call(shell.stop)

    thread = threading.Thread(target=call)
    thread.start()
    shell.run()
    thread.join()
    assert ran_in == [threading.get_ident()] * 100


def test_a_fault_ends_the_loop(shell: Recorder) -> None:
    shell.call(lambda: shell.fail(ConfigError("cannot go on")))
    with pytest.raises(ConfigError, match="cannot go on"):
        shell.run()


def test_bad_messages_and_our_own_faults_become_dead_letters(
    shell: Recorder, mosquitto: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    letters = shell.topics.deadletter("recorder")
    with Client(mosquitto, letters) as client:
        client.publish(shell.topics.results("cam"), b"bad")
        client.publish(shell.topics.results("cam"), b"worse")
        client.publish(f"{shell.topics.root}/no/such/topic", b"\0" * 100)
        client.publish(shell.topics.results("cam"), b"good")
        shell.turn_until("results bad", "results worse", "results good")
        shell.turn()
        client.wait_for(lambda _heard: len(client.on(letters)) == 3)
        bad, worse, strange = (heard.json for heard in client.on(letters))
    assert (bad["topic"], bad["reason"]) == (shell.topics.results("cam"), "this is bad")
    assert (bad["first_bytes"], bad["size"]) == (b"bad".hex(), 3)
    assert worse["reason"] == "internal error: KeyError('a fault of ours')"
    assert strange["reason"].endswith("is none of the protocol's")
    assert (strange["first_bytes"], strange["size"]) == ("00" * 32, 100)
    assert shell.bad_messages == 3
    assert "Traceback" in caplog.text


def test_later_boots_sort_after_earlier_ones() -> None:
    first = new_boot()
    later = until(lambda: [boot for boot in [new_boot()] if boot.split("-")[0] != first.split("-")[0]])
    assert later[0] > first
