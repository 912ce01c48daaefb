"""What a model takes: the size and colours of its pictures, and how their values are normalised."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_SIDE = 4096
"""Pixels of the largest picture a model takes, each way."""


class InputSpec(BaseModel):
    """How a picture becomes the model's input: size, colours and normalisation of values in 0..1."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    height: int = Field(ge=1, le=MAX_SIDE)
    width: int = Field(ge=1, le=MAX_SIDE)
    channels: Literal[1, 3]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @model_validator(mode="after")
    def _one_value_a_channel(self) -> "InputSpec":
        if len(self.mean) != self.channels or len(self.std) != self.channels or min(self.std) <= 0:
            raise ValueError(f"mean and std need {self.channels} values, those of std above 0")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.channels, self.height, self.width)
