"""`mqtt-mdi policy show` and `policy set`: what any MQTT client could do, with checks and answers."""

import json
import secrets
import time

import click
from rich.console import Console
from rich.table import Table

from mqtt_mdi.cli.options import broker_options, timeout_option
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.strategies.registry import STRATEGIES
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.runtime.client import Connection
from mqtt_mdi.runtime.message import Message
from mqtt_mdi.runtime.shell import Shell
from mqtt_mdi.wire.messages import POLICY, POLICY_REPLY, PolicyReply
from mqtt_mdi.wire.topics import Topic, Topics


class PolicyShell(Shell):
    """Hears the retained policy, or sends a patch and hears what became of it."""

    def __init__(self, broker: BrokerURL, pipeline: str, patch: bytes | None = None) -> None:
        topics = Topics(pipeline)
        token = secrets.token_hex(6)
        connection = Connection(broker, topics.client_id("policy", token), own=topics.policy_set)
        super().__init__("policy", topics, connection)
        self.policy: Policy | None = None
        self.reply: PolicyReply | None = None
        self._patch = patch
        self._token = token.encode()

    def connected(self) -> None:
        """Ask."""
        if self._patch is None:
            self.connection.subscribe(self.topics.policy, qos=1)
            return
        self.connection.subscribe(self.topics.policy_result, qos=1)
        self.connection.publish(
            self.topics.policy_set,
            self._patch,
            qos=1,
            response_topic=self.topics.policy_result,
            correlation=self._token,
        )

    def received(self, message: Message, topic: Topic) -> None:
        """Hear."""
        if topic.kind == "policy":
            self.policy = POLICY.decode(message.payload)
            self.stop()
        elif topic.kind == "policy/result" and message.correlation == self._token:
            self.reply = POLICY_REPLY.decode(message.payload)
            self.stop()

    def ask(self, within_s: float, lacking: str) -> None:
        """Run until there is an answer; ConfigError after `within_s`."""
        deadline = time.monotonic() + within_s
        try:
            while not self.stopping:
                if time.monotonic() > deadline:
                    raise ConfigError(
                        f"no answer from {self.connection.url} in {within_s:.0f} s: {lacking} "
                        f"(pipeline {self.topics.pipeline})"
                    )
                self.turn()
        finally:
            self.connection.close()


_TIMEOUT = timeout_option("Seconds to wait for an answer.")


@click.group(short_help="Show or change the policy of a running pipeline.")
def policy() -> None:
    """Show or change the thresholds, placement and limits of a running pipeline."""


@policy.command()
@broker_options
@_TIMEOUT
def show(broker: BrokerURL, pipeline: str, timeout: float) -> None:
    """Print the policy in force as JSON."""
    shell = PolicyShell(broker, pipeline)
    shell.ask(timeout, "no policy is retained there; is a coordinator running?")
    assert shell.policy is not None
    click.echo(shell.policy.model_dump_json(indent=2, exclude_none=True))


@policy.command()
def strategies() -> None:
    """List the strategies that a policy can name."""
    table = Table(box=None, show_header=False)
    for name, strategy in STRATEGIES.items():
        table.add_row(name, strategy.about)
    Console().print(table)


@policy.command("set")
@broker_options
@_TIMEOUT
@click.argument("patch")
def set_(broker: BrokerURL, pipeline: str, timeout: float, patch: str) -> None:
    """Apply PATCH, a JSON merge patch (RFC 7396).

    null brings a field back to its default; thresholds have none.

    \b
    Examples:
      mqtt-mdi policy set '{"thresholds": [0.99, 0.99, 0.99]}'
      mqtt-mdi policy set '{"placement": {"device-1": [1, 2]}}'
      mqtt-mdi policy set '{"strategy": "planner"}'
      mqtt-mdi policy set '{"planning": {"goal": "accuracy", "accuracy": 0.92}}'
    """  # noqa: D301 -- click's mark for lines to keep
    try:
        json.loads(patch)
    except (ValueError, RecursionError) as error:  # no JSON, a number without end, or too deep
        raise ConfigError(f"PATCH is no JSON: {error}; quote it for the shell like '{{...}}'") from error
    shell = PolicyShell(broker, pipeline, patch.encode())
    shell.ask(timeout, "is a coordinator running?")
    assert shell.reply is not None
    if not shell.reply.accepted:
        raise ConfigError(f"rejected, version {shell.reply.version} stays in force: {shell.reply.reason}")
    click.echo(f"accepted as version {shell.reply.version}")
