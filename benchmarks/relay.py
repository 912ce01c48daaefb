"""The yardstick: the least a Python process can do to hand a message on, paho and nothing else."""

import socket
import sys
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion


def main() -> None:
    """Publish on `target` whatever arrives on `origin`, with the same quality of service."""
    host, port, origin, target = sys.argv[1:]
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)

    def opened(_client: paho.Client, _data: object, connection: Any) -> None:  # noqa: ANN401 -- paho's
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def arrived(_client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        client.publish(target, message.payload, qos=message.qos)

    client.on_socket_open = opened
    client.on_message = arrived
    client.connect(host, int(port))
    client.subscribe(origin, qos=1)
    client.loop_forever()


if __name__ == "__main__":
    main()
