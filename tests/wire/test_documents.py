import pytest

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.wire.documents import MAX_YAML_BYTES, load_yaml


def test_plain_values() -> None:
    assert load_yaml(b"a: [1, 2.5, x]\nb: {c: null}\n", "it") == {"a": [1, 2.5, "x"], "b": {"c": None}}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"a: &a [1]\nb: *a\n", "line 2 has an alias"),
        (b"[" * 5000, "recursion"),
        (b"seed: 2001-99-99\n", "month must be in"),
        (b"a: !!timestamp x\n", "cannot read it"),
        (b"\xff\xfe\xfa", "cannot read it"),
        (b" " * (MAX_YAML_BYTES + 1), f"at most {MAX_YAML_BYTES}"),
    ],
)
def test_what_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load_yaml(data, "it")
