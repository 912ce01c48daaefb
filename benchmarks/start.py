"""From the start of a device's process to its first answered frame, which has been waiting for it."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import measure
import networks
import pipeline

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.runtime.client import Connection
from mqtt_mdi.wire.frames import encode_png
from mqtt_mdi.wire.messages import DEVICE_STATE, RESULT
from mqtt_mdi.wire.topics import Topics

PATIENCE_S = 20.0
WAYS = {"stages over MQTT": [], "stages from a folder": ["--bundle", str(SHIPPED_BUNDLE)]}


class Asker:
    """Sends one frame to a pipeline without devices, and hears when it is answered."""

    def __init__(self, url: BrokerURL, name: str) -> None:
        self.topics = Topics(name)
        self.connection = Connection(url, "bench-asker", on_connected=self._connected)
        self.frame = encode_png(read_sample(SHIPPED_BUNDLE).pictures[0])
        self.waiting = 0
        self.answers = 0
        self.online: set[str] = set()

    def _connected(self) -> None:
        self.connection.subscribe(self.topics.results("start"), qos=1)
        self.connection.subscribe(self.topics.device())

    def turn(self) -> None:
        """Take in what has come."""
        for message in self.connection.poll(0.05):
            if message.topic.endswith("/state"):
                state = DEVICE_STATE.decode(message.payload)
                (self.online.add if state.online else self.online.discard)(state.device)
                if state.role == "source":
                    self.waiting = state.output_queue
            else:
                result = RESULT.decode(message.payload)
                assert result.status == "ok", result.reason
                self.answers += 1

    def wait(self, goal: str, seen: str, count: int) -> None:
        """Turn until the named count is reached."""
        deadline = time.monotonic() + PATIENCE_S
        while getattr(self, seen) < count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{goal}: not within {PATIENCE_S:.0f} s")
            self.turn()

    def send(self) -> None:
        """Send the frame, and wait until the source holds it for want of a device."""
        self.connection.publish(self.topics.frames("start"), self.frame.data, qos=1)
        self.wait("the source admits a frame", "waiting", 1)

    def left(self, device: str) -> None:
        """Wait until a device has said goodbye."""
        deadline = time.monotonic() + PATIENCE_S
        while device in self.online and time.monotonic() < deadline:
            self.turn()


def start(rounds: int = 7) -> list[measure.Row]:
    """Seconds for each way to come by all stages, of the shipped network and of a larger one."""
    rows = measure.medians(first_answers(rounds, WAYS), "way")
    with tempfile.TemporaryDirectory() as folder:
        bundle = str(networks.untrained("mobilenetv2", "mobilenetv2", Path(folder)).folder)
        ways = {
            "MobileNetV2 1.0, stages over MQTT": [],
            "MobileNetV2 1.0, stages from a folder": ["--bundle", bundle],
        }
        larger = first_answers(rounds, ways, ["--bundle", bundle])
    return rows + measure.medians(larger, "way")


def first_answers(
    rounds: int, ways: Mapping[str, Sequence[str]], coordinator: Sequence[str] = ()
) -> list[measure.Row]:
    """Seconds until the first answer of a device with these options, one row a start; they take turns."""
    measured: list[measure.Row] = []
    with ExitStack() as stack:
        url = stack.enter_context(measure.broker())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(pipeline.running_pipeline(url, "start", folder, [], {"coordinator": coordinator}))
        asker = Asker(url, "start")
        stack.callback(asker.connection.close)
        while "source-1" not in asker.online:
            asker.turn()
        for number in range(rounds):
            for way, options in ways.items():
                asker.send()
                answers, began = asker.answers, time.monotonic()
                name = f"device-{number}"
                with measure.child(*pipeline.command("device", url, "start", name), *options):
                    asker.wait("a first answer", "answers", answers + 1)
                    measured.append({"way": way, "first answer, s": time.monotonic() - began})
                asker.left(name)
                asker.waiting = 0
    return measured


def main() -> None:
    """Print the table alone."""
    measure.table("From the start of a process to its first answer", start())


if __name__ == "__main__":
    main()
