"""CPU for taking a task in, running nothing and handing it on: a device beside relays that only relay."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import measure
import numpy as np
import passthrough

from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.types import DeviceState, Task
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.runtime.client import Connection
from mqtt_mdi.wire.messages import DEVICE_STATE, POLICY
from mqtt_mdi.wire.tasks import decode_tasks, encode_tasks
from mqtt_mdi.wire.topics import Topics

RAW_IN, RAW_OUT = "raw/in", "raw/out"
ECHO_IN = "echo/in"
STREAMING = 64
STATE_EVERY_S = 0.1
PATIENCE_S = 20.0
WARM_UP = 400

LOADS = {
    "1 a message, 1 in flight": (1, 1),
    "1 a message, 64 in flight": (1, STREAMING),
    "8 a message, 64 in flight": (8, STREAMING),
}
"""Tasks in each message sent, and tasks on their way at a time."""


class Driver:
    """Sends tasks to a relay and counts them where they come out."""

    def __init__(self, url: BrokerURL) -> None:
        self.topics = Topics(passthrough.PIPELINE)
        self.connection = Connection(url, "bench-driver", on_connected=self._connected)
        self.device: DeviceState | None = None
        self.tensor = np.random.default_rng(0).normal(size=(1, *passthrough.SHAPE)).astype(np.float32)
        self.came = 0
        self.messages = 0
        self.sent = 0
        self._policy_version = 0
        self._state_at = 0.0

    def _connected(self) -> None:
        self.connection.subscribe(self.topics.stage(passthrough.NEXT, passthrough.SINK), qos=1)
        self.connection.subscribe(RAW_OUT, qos=1)
        self.connection.subscribe(self.topics.device(passthrough.DEVICE))

    def turn(self) -> None:
        """Take in what has come; tell the device again that the sink is there and idle."""
        now = time.monotonic()
        if self.connection.connected and now >= self._state_at:
            self._state_at = now + STATE_EVERY_S
            state = DeviceState(passthrough.SINK, "sink-1", stages=(passthrough.NEXT,), stamp=now)
            topic = self.topics.device(passthrough.SINK)
            self.connection.publish(topic, DEVICE_STATE.encode(state), retain=True)
        for message in self.connection.poll(0.05):
            if message.topic == RAW_OUT:
                self.came += len(decode_tasks(message.payload, passthrough.HELD).tasks)
                self.messages += 1
            elif message.topic.endswith("/state"):
                self.device = DEVICE_STATE.decode(message.payload)
            else:
                self.came += len(decode_tasks(message.payload, passthrough.NEXT).tasks)
                self.messages += 1

    def wait(self, goal: str, reached: Callable[[], bool]) -> None:
        """Turn until something is so."""
        deadline = time.monotonic() + PATIENCE_S
        while not reached():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{goal}: not within {PATIENCE_S:.0f} s")
            self.turn()

    def demand(self, qos: int) -> None:
        """Publish a policy with this quality of data, and wait until the device runs it."""
        self._policy_version += 1
        policy = Policy.model_validate(
            {
                "version": self._policy_version,
                "thresholds": (2.0, 2.0),
                "queue_limit": 100_000,
                "data_qos": qos,
            }
        )
        self.connection.publish(self.topics.policy, POLICY.encode(policy), qos=1, retain=True)
        self.wait(
            "the device takes the policy",
            lambda: self.device is not None and self.device.policy_version == policy.version,
        )

    def relay(self, topic: str, tasks: int, batch: int, flight: int, qos: int) -> float:
        """Have `tasks` tasks relayed, `batch` to a message; messages out for each task."""
        came, goal = self.came, self.came + tasks
        messages, sent = self.messages, 0
        deadline = time.monotonic() + PATIENCE_S
        while self.came < goal:
            while sent < tasks and sent - (self.came - came) + batch <= max(flight, batch):
                self.connection.publish(topic, self._batch(batch), qos=qos)
                sent += batch
                deadline = time.monotonic() + PATIENCE_S
            self.turn()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{goal - self.came} of {tasks} tasks to {topic} did not come out")
        return tasks / (self.messages - messages)

    def _batch(self, count: int) -> bytes:
        first, self.sent = self.sent, self.sent + count
        return encode_tasks(
            [
                (Task("cam", f"frame-{first + i}", "source", passthrough.HELD), self.tensor)
                for i in range(count)
            ]
        )


def _compiled(folder: Path) -> str | None:
    """The relay in C as a program, None where it cannot be made."""
    program = str(folder / "echo")
    words = ["cc", "-O2", str(measure.HERE / "echo.c"), "-lmosquitto", "-o", program]
    try:
        subprocess.run(words, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        print("no relay in C: it needs a C compiler and libmosquitto-dev", file=sys.stderr)
        return None
    return program


def hop(rounds: int = 5, tasks: int = 4000) -> list[measure.Row]:
    """CPU microseconds for each task, in the relay's process alone; rivals take turns."""
    measured: list[measure.Row] = []
    with ExitStack() as stack:
        url = stack.enter_context(measure.broker())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        passthrough.write_bundle(folder)
        driver = Driver(url)
        stack.callback(driver.connection.close)
        device_in = driver.topics.stage(passthrough.HELD, passthrough.DEVICE)
        where = (url.host, str(url.port))
        commands = {
            "paho": (RAW_IN, ("relay.py", *where, RAW_IN, RAW_OUT)),
            "device": (device_in, ("passthrough.py", str(url), str(folder))),
        }
        if echo := _compiled(folder):
            commands["C"] = (ECHO_IN, (echo, *where, ECHO_IN, RAW_OUT))
        rivals = {
            name: (stack.enter_context(measure.child(*words)).pid, topic)
            for name, (topic, words) in commands.items()
        }
        driver.wait("the device is up", lambda: bool(driver.device and driver.device.stages))
        for qos in (0, 1):
            driver.demand(qos)
            for _, topic in rivals.values():
                driver.relay(topic, WARM_UP, 1, STREAMING, qos)
            for _ in range(rounds):
                for load, (batch, flight) in LOADS.items():
                    row: measure.Row = {"load": f"QoS {qos}, {load}"}
                    for name, (pid, topic) in rivals.items():
                        before, began = measure.cpu_seconds(pid), time.perf_counter()
                        row[f"{name}, tasks a message out"] = driver.relay(topic, tasks, batch, flight, qos)
                        row[f"{name}, tasks/s"] = tasks / (time.perf_counter() - began)
                        row[f"{name}, us"] = 1e6 * (measure.cpu_seconds(pid) - before) / tasks
                    measured.append(row)
    return [_compare(row) for row in measure.medians(measured, "load")]


def _compare(row: measure.Row) -> measure.Row:
    paho, ours = float(str(row["paho, us"])), float(str(row["device, us"]))
    return {
        "load": row["load"],
        "C relay, us": row.get("C, us", ""),
        "paho relay, us": paho,
        "device, us": ours,
        "device / paho": ours / paho,
        **{f"{name}, tasks/s": row.get(f"{name}, tasks/s", "") for name in ("C", "device")},
        "tasks a message out": row["device, tasks a message out"],
    }


def main() -> None:
    """Print the table alone."""
    measure.table("CPU for each task-hop", hop())


if __name__ == "__main__":
    main()
