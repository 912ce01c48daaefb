"""Who may write and read what, by role; and the same as Mosquitto's access control list.

Mosquitto knows users, not roles, so the list names every user with all that its role allows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.wire.home_assistant import BIRTH, PREFIX
from mqtt_mdi.wire.topics import DROPPED, Topics, identifier

Role = Literal[
    "coordinator", "source", "device", "sensor", "operator", "viewer", "announcer", "home-assistant"
]
Users = Mapping[str, Mapping[Role, list[str]]]
"""Names of users by pipeline and role."""


@dataclass(frozen=True, slots=True)
class Rights:
    """Topics below a pipeline's root, or the broker's where they begin with `/`.

    `%u` stands for the user's own name, `%p` for the pipeline's.
    """

    writes: tuple[str, ...]
    reads: tuple[str, ...]


_WORKER = Rights(
    writes=("devices/%u/state", "deadletter/%u", "stage/+/+", "exits/+"),
    reads=("stage/+/%u", "stage/+/any", "policy", "model/#", "devices/+/state", "coordinator/state"),
)
_FOUND_ON = f"/{PREFIX}/device/mdi-%p/+/config"
_BIRTH = f"/{BIRTH}"
_WATCHER = ("policy", "policy/result", "metrics", "results/+", "devices/+/state", "coordinator/state")

RIGHTS: dict[Role, Rights] = {
    "coordinator": Rights(
        writes=(
            "policy",
            "policy/result",
            "model/#",
            "metrics",
            "coordinator/state",
            "deadletter/coordinator",
        ),
        reads=(
            "policy",
            "policy/set",
            "coordinator/state",
            "results/+",
            "truth/+",
            "deadletter/+",
            "devices/+/state",
            f"/{DROPPED}",
        ),
    ),
    "source": Rights(writes=(*_WORKER.writes, "results/+"), reads=(*_WORKER.reads, "frames/+", "exits/%u")),
    "device": _WORKER,
    # The last two tell a sensor whether there is anybody to answer.
    "sensor": Rights(
        writes=("frames/%u", "truth/%u"), reads=("results/%u", "devices/+/state", "model/manifest")
    ),
    "operator": Rights(writes=("policy/set",), reads=(*_WATCHER, "deadletter/+")),
    "viewer": Rights(writes=(), reads=_WATCHER),
    # `mqtt-mdi home-assistant` describes the pipeline; Home Assistant reads that, may clear it, and steers.
    "announcer": Rights(writes=(_FOUND_ON,), reads=(*_WATCHER, _FOUND_ON, _BIRTH)),
    "home-assistant": Rights(writes=("policy/set", _FOUND_ON, _BIRTH), reads=(*_WATCHER, _FOUND_ON, _BIRTH)),
}


def check_users(users: Users) -> dict[str, tuple[str, Role]]:
    """Pipeline and role of each user; ConfigError when a name is not fit for a topic, or named twice."""
    found: dict[str, tuple[str, Role]] = {}
    for pipeline, roles in users.items():
        identifier(pipeline, "pipeline")
        for role, names in roles.items():
            for name in names:
                identifier(name, role)
                if name in found:
                    raise ConfigError(
                        f"user {name} is named twice: each has one role in one pipeline; choose another name"
                    )
                found[name] = (pipeline, role)
    return found


def mosquitto_acl(users: Users) -> str:
    """The content of Mosquitto's `acl_file` for these users; what is not in it is forbidden."""
    return "\n".join(
        _block(name, pipeline, RIGHTS[role]) for name, (pipeline, role) in check_users(users).items()
    )


def _block(user: str, pipeline: str, rights: Rights) -> str:
    root = Topics(pipeline).root
    lines = [("write", topic) for topic in rights.writes] + [("read", topic) for topic in rights.reads]
    named = [(access, topic[1:] if topic.startswith("/") else f"{root}/{topic}") for access, topic in lines]
    return f"user {user}\n" + "".join(
        f"topic {access} {topic.replace('%u', user).replace('%p', pipeline)}\n" for access, topic in named
    )
