"""Values: dataclasses that nobody changes. The type checker holds this, the interpreter does not.

A frozen dataclass sets each field through a function call: a fifth of the time that a simulation took.
"""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """Make a class a dataclass with slots, equality and a hash, immutable to the type checker."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
