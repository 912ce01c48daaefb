"""What a coordinator hears of many devices and many results, from one process with plain MQTT clients.

python benchmarks/crowd.py PORT PIPELINE DEVICES RESULTS_A_SECOND
"""

import itertools
import random
import sys
import time

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from mqtt_mdi.core.types import DeviceState, Echo, Result
from mqtt_mdi.wire.messages import DEVICE_STATE, RESULT, TRUTH, TruthMessage
from mqtt_mdi.wire.topics import Topics

PERIOD_S = 1.0
"""How often a device tells its state: a third of the default `silence_s`."""

TURNS = 20
"""Into how many parts a second is cut: each brings its part of states and results."""

WAITING = 2000


def main() -> None:
    """Publish until killed; each device hears all others, as in one network."""
    port, pipeline, devices, rate = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    topics = Topics(pipeline)
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.max_inflight_messages_set(WAITING)
    client.connect("127.0.0.1", port)
    client.loop_start()
    names = [f"device-{number:03}" for number in range(1, devices + 1)]
    chance = random.Random(1)
    begun = time.monotonic()
    sent = 0
    for turn in itertools.count():
        now = time.monotonic() - begun
        for number in range(turn % TURNS, devices, TURNS):
            client.publish(topics.device(names[number]), state(names, number, now, chance), retain=True)
        while sent < (turn + 1) * rate // TURNS:
            sent += 1
            frame, label, device = f"f-{sent}", chance.randrange(10), chance.choice(names)
            exit_stage = chance.choice((1, 1, 1, 2, 2, 3, 4))
            answer = Result(
                "cam1", frame, "ok", label, f"class {label}", chance.uniform(0.8, 1), exit_stage, device
            )
            client.publish(topics.results("cam1"), RESULT.encode(answer), qos=1)
            client.publish(topics.truth("cam1"), TRUTH.encode(TruthMessage(frame, label)), qos=1)
        time.sleep(max(0.0, begun + (turn + 1) * PERIOD_S / TURNS - time.monotonic()))


def state(names: list[str], number: int, now: float, chance: random.Random) -> bytes:
    """A device that hears all others and has tasks waiting."""
    others = [name for name in names if name != names[number]]
    told = DeviceState(
        names[number],
        "boot",
        stages=(number % 4 + 1, (number + 1) % 4 + 1),
        input_queue=chance.randrange(40),
        output_queue=chance.randrange(10),
        running=1,
        service_s=0.01,
        counters={"arrived": int(now * 100), "completed": int(now * 100)},
        policy_version=1,
        stamp=now,
        delays=dict.fromkeys(others, 0.001),
        echoes={name: Echo(now, 0.01, int(now * 100)) for name in others},
    )
    return DEVICE_STATE.encode(told)


if __name__ == "__main__":
    main()
