"""YAML that people write: scenarios and lists of users."""

import yaml

from mqtt_mdi.errors import ConfigError

MAX_YAML_BYTES = 2**20


def load_yaml(data: bytes, where: str) -> object:
    """Read a YAML document of plain values; ConfigError names the line where it cannot be read."""
    if len(data) > MAX_YAML_BYTES:
        raise ConfigError(f"{where} is {len(data)} bytes: at most {MAX_YAML_BYTES} are taken")
    try:
        document: object = yaml.load(data, _Tree)  # noqa: S506 -- a SafeLoader
    except Exception as error:  # PyYAML raises all sorts for values that do not fit their tag
        raise ConfigError(f"cannot read {where}: {str(error)[:500]}") from error
    return document


class _Tree(yaml.SafeLoader):
    """Takes no aliases, of which a few dozen could stand for more than any memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
            raise yaml.YAMLError(f"line {line} has an alias: write out what it stands for")
        return super().compose_node(parent, index)
