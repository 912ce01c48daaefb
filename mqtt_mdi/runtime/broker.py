"""A broker of our own: an installed mosquitto with settings that fit, else the embedded one."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from random import SystemRandom
from typing import Literal

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.runtime.broker_url import BrokerURL

Kind = Literal["mosquitto", "embedded"]

START_S = 30.0

_SBIN = ("/usr/local/sbin", "/usr/sbin")
"""Where packages put mosquitto, and where only root's PATH looks."""

# Below what kernels give to outgoing connections (32768 and up on Linux): none of those can take a port
# between our look at it and the broker's start.
_PORTS = range(10_000, 32_000)

# Without set_tcp_nodelay each message of quality 1 costs 44 ms; the default queue of 1,000 messages
# drops in silence; the default of 20 in flight makes a batching coordinator wait.
_MOSQUITTO = """\
listener {port} {host}
allow_anonymous true
set_tcp_nodelay true
max_inflight_messages 1000
max_queued_messages 100000
max_queued_bytes 268435456
max_packet_size 67108864
persistence false
log_dest stderr
log_type error
log_type warning
"""

# As in broker/mosquitto.service.conf: glibc would give memory back to the system after nearly every message
# of tasks, and be given it anew, page by page, for the next. Other C libraries ignore these settings.
_KEPT_MEMORY = {"MALLOC_TRIM_THRESHOLD_": "4194304", "MALLOC_MMAP_THRESHOLD_": "1048576"}

# rumqttd serves each version of the protocol on a port of its own.
_EMBEDDED = """\
id = 0
[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 1000
max_segment_size = 67108864
max_segment_count = 10
{listeners}"""
_LISTENER = """
[{version}.1]
name = "{version}"
listen = "{host}:{port}"
next_connection_delay_ms = 1
[{version}.1.connections]
connection_timeout_ms = 60000
max_payload_size = 67108864
max_inflight_count = 1000
dynamic_filters = true
"""


def mosquitto_program() -> str | None:
    """Path of the mosquitto that is installed here, None without one."""
    return shutil.which("mosquitto", path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_SBIN)))


def choose(kind: str) -> Kind:
    """Turn `auto` into the broker to be had; ConfigError when the one asked for is not there."""
    if kind in ("auto", "mosquitto") and mosquitto_program():
        return "mosquitto"
    if kind == "mosquitto":
        raise ConfigError(
            f"no mosquitto on PATH or in {' or '.join(_SBIN)}: install it, or use the embedded broker"
        )
    return "embedded"


@contextmanager
def running_broker(kind: Kind, port: int = 0, host: str = "127.0.0.1") -> Iterator[BrokerURL]:
    """Run a broker for as long as the context lasts; port 0 takes a free one.

    The embedded broker takes MQTT 5 at `port` and MQTT 3.1.1 at the port after it; mosquitto takes both
    at `port`. Raises ConfigError when a port is in use or the broker does not start.
    """
    count = 1 if kind == "mosquitto" else 2
    port = port or free_ports(host, count)
    for taken in range(port, port + count):
        _check_free(host, taken)
    with tempfile.TemporaryDirectory(prefix="mqtt-mdi-") as folder:
        start = _mosquitto if kind == "mosquitto" else _embedded
        with start(Path(folder), host, port):
            yield BrokerURL("127.0.0.1" if host in ("0.0.0.0", "::") else host, port)  # noqa: S104 -- compared


def free_ports(host: str, count: int) -> int:
    """The first of `count` adjacent free ports."""
    for _ in range(100):
        port = SystemRandom().choice(_PORTS)
        try:
            for following in range(port, port + count):
                _check_free(host, following)
        except ConfigError:
            continue
        return port
    raise ConfigError(f"no {count} adjacent free ports on {host}")


def _check_free(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"cannot listen on {host}:{port}: {error}; stop what uses it or choose another --port"
            ) from error


@contextmanager
def _mosquitto(folder: Path, host: str, port: int) -> Iterator[None]:
    config = folder / "mosquitto.conf"
    config.write_text(_MOSQUITTO.format(host=host, port=port))
    log = folder / "mosquitto.log"
    program = mosquitto_program()
    assert program is not None
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 -- ours
            [program, "-c", str(config)],
            stdout=output,
            stderr=output,
            env={**_KEPT_MEMORY, **os.environ},
            start_new_session=True,  # Ctrl-C is for us, who need it until all have said goodbye
        )
    try:
        _wait_for(host, port, lambda: process.poll() is None, lambda: log.read_text(errors="replace"))
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _embedded(folder: Path, host: str, port: int) -> Iterator[None]:
    try:
        from iotcore import Broker  # noqa: PLC0415 -- not on every platform, not for every process
    except ImportError as error:
        raise ConfigError(
            "the embedded broker has no wheel for this platform: install mosquitto, or name a --broker"
        ) from error
    listeners = "".join(
        _LISTENER.format(version=version, host=host, port=port + offset)
        for offset, version in enumerate(("v5", "v4"))
    )
    config = folder / "rumqttd.toml"
    config.write_text(_EMBEDDED.format(listeners=listeners))
    broker: AbstractContextManager[object] = Broker(config_path=str(config))
    with broker:
        _wait_for(host, port, lambda: True, lambda: "")
        yield


def _wait_for(host: str, port: int, alive: Callable[[], bool], story: Callable[[], str]) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            with socket.create_connection((host, port), timeout=0.5):
                return
        except OSError as error:
            if not alive() or time.monotonic() > deadline:
                raise ConfigError(f"the broker did not start on {host}:{port}: {story() or error}") from error
        time.sleep(0.02)
