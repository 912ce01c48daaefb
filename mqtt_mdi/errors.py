"""The errors of mqtt-mdi, split by whose fault they are.

Every message says what was wrong, where, what was expected and what to do about it.
"""


class MdiError(Exception):
    """Base of every error raised on purpose by mqtt-mdi."""


class ProtocolError(MdiError):
    """A peer sent bytes that are not what the protocol asks for."""


class ConfigError(MdiError):
    """The operator asked for something that cannot be done as configured."""


class BundleError(MdiError):
    """The model artefact is missing, damaged or does not fit its manifest."""


class StorageError(MdiError):
    """The database cannot take what it is given (locked, full, of another version)."""


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, for which torch has a type of its own on GPUs alone."""
    said = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in said or "allocate memory" in said)
    )


def first_line(error: BaseException) -> str:
    """What an error says in its first line, or what it is."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300].rstrip(".")
