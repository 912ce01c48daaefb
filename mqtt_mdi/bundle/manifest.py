"""The manifest: what a bundle holds, how its stages fit together and how well they do."""

from collections.abc import Sequence
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Annotated, Literal, Self

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from mqtt_mdi.core.system import ENVELOPE_BYTES, StageProfile
from mqtt_mdi.errors import BundleError
from mqtt_mdi.wire.inputs import InputSpec

MANIFEST_FILE = "manifest.json"
SHIPPED_BUNDLE = Path(__file__).parents[1] / "assets" / "fashion-mnist"
"""The trained bundle that comes with the package."""

MAX_MANIFEST_BYTES = 2**20
# The largest integer that floating point numbers hold exactly: costs are divided.
_MOST = 2**53

Positive = Annotated[int, Ge(1), Le(_MOST)]
Shape = Annotated[tuple[Positive, ...], MinLen(1), MaxLen(3)]
"""Of one sample, (C, H, W) for pictures."""

ElementType = Literal["float32", "float16", "uint8", "int8"]
_BYTES = {"float32": 4, "float16": 2, "uint8": 1, "int8": 1}

Share = Annotated[float, Ge(0), Le(1)]
MAX_NAME = 200
Name = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StageSpec(_Part):
    """One stage: the layers between two exits, and the exit at its end.

    `macs` are the multiply-adds of one sample through the stage, its exit included; `exit_macs` is the
    exit's part of them. `activation_bytes` is the size of one sample's output in `output_type`.
    """

    index: Annotated[int, Ge(1), Le(64)]
    graph: Annotated[str, StringConstraints(pattern=r"^stage-\d{1,2}\.onnx$")]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    input_shape: Shape
    output_shape: Shape | None
    input_type: ElementType = "float32"
    output_type: ElementType = "float32"
    macs: Positive
    exit_macs: Annotated[int, Ge(0), Le(_MOST)]
    params: Positive
    activation_bytes: Annotated[int, Ge(0), Le(_MOST)]
    graph_bytes: Positive
    temperature: Annotated[float, Gt(0)]

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        size = _BYTES[self.output_type] * prod(self.output_shape) if self.output_shape else 0
        if self.activation_bytes != size:
            raise ValueError(f"activation_bytes is {self.activation_bytes}, output_shape makes {size}")
        if self.exit_macs > self.macs:
            raise ValueError(f"exit_macs {self.exit_macs} is more than macs {self.macs}")
        return self


class OperatingPoint(_Part):
    """What a set of thresholds brings on a labelled set.

    `macs_share` is the mean cost of a sample as a share of the network without early exits; `exits[k]`
    the share of samples that left at exit k + 1.
    """

    accuracy: Share
    macs_share: Annotated[float, Ge(0)]
    exits: tuple[Share, ...]


class Training(_Part):
    """Where the weights come from; `samples` counts the pictures fitted and held out together."""

    recipe: dict[Name, bool | int | float | str]
    dataset: Name
    samples: Positive
    seed: int
    version: Name


class Manifest(_Part):
    """Everything a device, a source or an operator needs to know of a bundle.

    `exit_accuracy`, `exit_ece` (expected calibration error after calibration) and `operating_point`
    are measured on the test set with the graphs of this bundle.
    """

    format: Literal[1] = 1
    name: Name
    classes: Annotated[tuple[Name, ...], MinLen(2)]
    input: InputSpec
    stages: Annotated[tuple[StageSpec, ...], MinLen(1), Field(max_length=64)]
    thresholds: tuple[float, ...]
    exit_accuracy: tuple[Share, ...]
    exit_ece: tuple[Share, ...]
    operating_point: OperatingPoint
    trained: Training

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        count = len(self.stages)
        if [stage.index for stage in self.stages] != list(range(1, count + 1)):
            raise ValueError(f"stages must be numbered 1 to {count} in order")
        if len({stage.graph for stage in self.stages}) != count:
            raise ValueError("two stages name the same graph")
        if len(self.thresholds) != count - 1:
            raise ValueError(f"{count} stages need {count - 1} thresholds, not {len(self.thresholds)}")
        for name, values in (
            ("exit_accuracy", self.exit_accuracy),
            ("exit_ece", self.exit_ece),
            ("operating_point.exits", self.operating_point.exits),
        ):
            if len(values) != count:
                raise ValueError(f"{count} stages need {count} values of {name}, not {len(values)}")
        outputs: list[tuple[tuple[int, ...] | None, ElementType]] = [(self.input.shape, "float32")]
        outputs += [(stage.output_shape, stage.output_type) for stage in self.stages]
        for stage, (shape, kind) in zip(self.stages, outputs, strict=False):
            if (stage.input_shape, stage.input_type) != (shape, kind):
                raise ValueError(
                    f"stage {stage.index} takes {stage.input_type} of shape {stage.input_shape}, "
                    f"what comes is {kind} of shape {shape}"
                )
        if self.stages[-1].output_shape is not None:
            raise ValueError("the last stage must have no output_shape")
        return self

    @property
    def stage_count(self) -> int:
        """How many stages, and so exits, there are."""
        return len(self.stages)

    @property
    def full_macs(self) -> int:
        """Multiply-adds of one sample through the network without its early exits."""
        return full_macs(self.stages)

    @property
    def macs_shares(self) -> tuple[float, ...]:
        """Cost of leaving at each exit, as a share of `full_macs`."""
        return macs_shares(self.stages)

    @property
    def profiles(self) -> tuple[StageProfile, ...]:
        """What each stage asks for; a frame is taken to be as large as its pixels."""
        sizes = (prod(self.stages[0].input_shape), *(stage.activation_bytes for stage in self.stages[:-1]))
        return tuple(
            StageProfile(stage.macs, size + ENVELOPE_BYTES, stage.graph_bytes)
            for stage, size in zip(self.stages, sizes, strict=True)
        )

    def stage(self, index: int) -> StageSpec:
        """The stage numbered `index`, from 1; raises BundleError where there is none."""
        if not 1 <= index <= self.stage_count:
            raise BundleError(f"bundle {self.name} has no stage {index}: it has 1 to {self.stage_count}")
        return self.stages[index - 1]


def full_macs(stages: Sequence[StageSpec]) -> int:
    """Multiply-adds of one sample through the stages without the early exits."""
    return sum(stage.macs for stage in stages) - sum(stage.exit_macs for stage in stages[:-1])


def macs_shares(stages: Sequence[StageSpec]) -> tuple[float, ...]:
    """Multiply-adds up to and including each exit, as shares of the network without early exits.

    A sample pays for every exit it passes, so the last share is a little above 1.
    """
    full = full_macs(stages)
    return tuple(spent / full for spent in accumulate(stage.macs for stage in stages))


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Read a manifest from JSON; `where` names its origin in the message of the BundleError."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{where} has {len(data)} bytes or more, a manifest at most {MAX_MANIFEST_BYTES}")
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc']))[:100] or 'manifest'}: {fault['msg']}"
            for fault in error.errors()[:3]
        ]
        raise BundleError(
            f"{where} is not a manifest of format 1: {'; '.join(faults)}; rebuild or fetch the bundle again"
        ) from error


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a bundle folder, or the file itself; raises BundleError."""
    return parse_manifest(manifest_bytes(path), str(manifest_file(path)))


def manifest_file(path: Path) -> Path:
    """The manifest of a bundle folder; any other path is taken to be the file itself."""
    return path / MANIFEST_FILE if path.is_dir() else path


def manifest_bytes(path: Path) -> bytes:
    """The manifest just as it lies on the disk, which is what a signature is of; raises BundleError."""
    try:
        with manifest_file(path).open("rb") as file:
            return file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise BundleError(
            f"no bundle at {path}: {error.strerror}; expected a folder with {MANIFEST_FILE}, "
            "as `mqtt-mdi train` writes it"
        ) from error
