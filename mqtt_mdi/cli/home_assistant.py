"""`mqtt-mdi home-assistant`: a pipeline appears in Home Assistant by itself, through its MQTT discovery."""

import logging

import click

from mqtt_mdi.cli.options import broker_options, stop_on_signals, timeout_option
from mqtt_mdi.cli.viewing import Viewer
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.strategies.registry import STRATEGIES
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.runtime.message import Message
from mqtt_mdi.wire.home_assistant import BIRTH, PREFIX, Discovery, Seen, limits, updates
from mqtt_mdi.wire.messages import POLICY, state_of
from mqtt_mdi.wire.topics import Topic

log = logging.getLogger(__name__)

PATIENCE_S = 10.0


class Announcer(Viewer):
    """Keeps what is retained for Home Assistant as the pipeline is; `limit` devices and as many sensors.

    A marker that comes back after each connection says that all retained messages have come: only then is
    known what is to be changed, and what is gone.
    """

    def __init__(self, broker: BrokerURL, discovery: Discovery, limit: int) -> None:
        pipeline = discovery.topics.pipeline
        super().__init__(broker, pipeline, "home-assistant", own=discovery.marker)
        self.discovery = discovery
        self.published: dict[str, bytes] = {}
        self.told_all = False
        self._limit = limit
        self._devices: dict[str, str] = {}
        self._sensors: dict[str, str] = {}
        self._policy: Policy | None = None
        self._done: Seen | None = None
        self._connections = 0
        self._over: set[str] = set()

    def connected(self) -> None:
        """Ask for all there is, and what we or another left there before."""
        self._connections += 1
        self.told_all, self._done = False, None
        self.published.clear()
        self._devices.clear()
        self.connection.subscribe(self.topics.device(), qos=1)
        self.connection.subscribe(self.topics.policy, qos=1)
        self.connection.subscribe(self.topics.results())
        self.connection.subscribe(BIRTH)
        self.ask_for_published()

    def ask_for_published(self) -> None:
        """Hear what is retained for Home Assistant, and when that is all."""
        self.connection.subscribe(self.discovery.every, qos=1)
        # Home Assistant takes no bytes for a device it does not know as nothing.
        self.connection.publish(self.discovery.marker, b"", qos=1, correlation=self._token())
        self.set_timer("marker", self.now() + PATIENCE_S, lambda _key: self._miss_marker())

    def received(self, message: Message, topic: Topic) -> None:
        """Hear who is there."""
        match topic.kind:
            case "results":
                self._keep(self._sensors, topic.name, "sensor")
            case "devices" if message.payload:
                self._keep(self._devices, topic.name, state_of(topic.name, message.payload).role)
            case "devices":
                self._devices.pop(topic.name, None)
            case "policy" if message.payload:
                self._policy = POLICY.decode(message.payload)

    def outside(self, message: Message) -> bool:
        """Hear Home Assistant, and what it is told."""
        if message.topic == BIRTH:
            if message.payload == b"online" and not message.retain:
                self._done = None
                self.published = dict.fromkeys(self.published, b"")
        elif message.topic == self.discovery.marker:
            self.told_all |= message.correlation == self._token()
        elif message.topic.startswith(f"{self.discovery.root}/"):
            self._hear_published(message)
        else:
            return False
        return True

    def end_turn(self) -> None:
        """Publish what has changed."""
        if self.told_all and (seen := self._seen()) != self._done:
            self._done = seen
            self.publish(self.discovery.messages(seen))

    def publish(self, wanted: dict[str, bytes]) -> None:
        """Have just these messages retained."""
        changed = {topic: text for topic, text in wanted.items() if self.published.get(topic) != text}
        for topic, text in changed.items():
            for part in updates(self.published.get(topic, b""), text):
                self.connection.publish(topic, part, qos=1, retain=True)
        for topic in self.published.keys() - wanted.keys():
            self.connection.publish(topic, b"", qos=1, retain=True)
        gone = len(self.published.keys() - wanted.keys())
        if changed or gone:
            log.info("%s: %d described, %d removed", self.discovery.every, len(changed), gone)
        self.published = wanted

    def serve(self) -> None:
        """Announce until stopped; what was announced stays."""
        try:
            self.run()
        finally:
            self.connection.close()

    def _hear_published(self, message: Message) -> None:
        """What was left there; or, later, that a person removed it: a sensor is back with its next answer."""
        sensor = self.discovery.sensor(message.topic)
        if not message.payload:
            if self.published.pop(message.topic, None) is not None and sensor is not None:
                self._sensors.pop(sensor, None)
        elif not self.told_all:
            self.published[message.topic] = message.payload
            if sensor is not None:
                self._keep(self._sensors, sensor, "sensor")

    def _miss_marker(self) -> None:
        if not self.told_all and self.connection.connected:
            every = self.discovery.every
            log.warning(
                "nothing is announced: what is published on %s does not come back; may we read it?", every
            )

    def _keep(self, known: dict[str, str], name: str, role: str) -> None:
        if name in known or len(known) < self._limit:
            known[name] = role
        elif role not in self._over:
            self._over.add(role)
            log.warning(
                "--limit is %d: %s %s is not announced, nor what comes after it", self._limit, role, name
            )

    def _seen(self) -> Seen:
        policy = self._policy
        return Seen(
            tuple(sorted(self._devices.items())),
            tuple(sorted(self._sensors)),
            limits(policy.thresholds) if policy else (),
            tuple(dict.fromkeys((*STRATEGIES, policy.strategy))) if policy else (),
        )

    def _token(self) -> bytes:
        return str(self._connections).encode()


class Remover(Announcer):
    """Removes all that was announced."""

    removed = 0

    def connected(self) -> None:
        """Ask what there is."""
        self.ask_for_published()

    def end_turn(self) -> None:
        """Remove it and end."""
        if self.told_all and not self.stopping:
            self.removed = len(self.published)
            self.publish({})
            self.stop()

    def remove(self, within_s: float) -> int:
        """How many devices were removed; ConfigError when the broker does not answer in time."""
        self.set_timer("late", self.now() + within_s, lambda _key: self.stop())
        self.serve()
        if not self.told_all:
            raise ConfigError(
                f"no answer from {self.connection.url} in {within_s:.0f} s; is the broker running?"
            )
        return self.removed


@click.command("home-assistant", short_help="Have Home Assistant show and steer a pipeline.")
@broker_options
@click.option(
    "--discovery-prefix",
    default=PREFIX,
    show_default=True,
    envvar="MDI_DISCOVERY_PREFIX",
    help="As it is set in Home Assistant.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=200,
    show_default=True,
    envvar="MDI_LIMIT",
    help="Devices, and as many sensors, that are announced at most.",
)
@click.option("--remove", is_flag=True, help="Remove the pipeline from Home Assistant and end.")
@timeout_option("With --remove, seconds to wait for the broker.")
def home_assistant(
    broker: BrokerURL, pipeline: str, discovery_prefix: str, limit: int, remove: bool, timeout: float
) -> None:
    """Announce the pipeline, its devices and the sensors that get answers to Home Assistant.

    Home Assistant, from 2024.11 on and on the same broker, reads all values from the pipeline itself and
    changes its policy there; this command describes them by MQTT discovery, and follows who comes and goes.
    When it ends, all stays as it is; --remove, with no other one running, takes it away.

    \b
    Example:
      mqtt-mdi home-assistant --broker mqtt://gateway
      mqtt-mdi home-assistant --broker mqtt://gateway --remove
      mosquitto_sub -v -t 'homeassistant/device/mdi-demo/+/config'
    """  # noqa: D301 -- click's mark for lines to keep
    discovery = Discovery(pipeline, discovery_prefix)
    if remove:
        click.echo(f"{Remover(broker, discovery, limit).remove(timeout)} removed")
        return
    announcer = Announcer(broker, discovery, limit)
    stop_on_signals(announcer.stop)
    announcer.serve()
