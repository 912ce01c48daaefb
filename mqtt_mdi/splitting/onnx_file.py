"""An ONNX file, cut at named tensors with onnx's extractor, and exits merged into its parts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import compose, version_converter
from onnx.utils import Extractor

import mqtt_mdi.engine.onnx  # noqa: F401 -- before onnxruntime, which would report its use otherwise
from mqtt_mdi.errors import ConfigError, first_line
from mqtt_mdi.export.cost import needed
from mqtt_mdi.splitting.read_onnx import varying_tensors

import onnxruntime  # isort: skip

_SILENT = 4
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Cut:
    """A tensor that a part ends with, and its shape for one sample."""

    tensor: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class CutGraph:
    """An ONNX network in parts: part k takes `inputs[k]` and gives the tensor of `cuts[k]`.

    With `own_exit` the last cut is what the network itself gives, its logits. `whole` gives all cuts at once.
    """

    parts: tuple[onnx.ModelProto, ...]
    cuts: tuple[Cut, ...]
    whole: onnx.ModelProto
    own_exit: bool


def cut_graph(
    model: onnx.ModelProto, cuts: Sequence[str], last: str | None, classes: int, example: NDArray[np.float32]
) -> CutGraph:
    """Cut a graph from `read_graph` at the tensors `cuts`, and end it with `last`, or its own logits if None.

    `example` (N, C, H, W), N >= 2, is run through the graph whole, in parts and one by one. Raises
    ConfigError for tensors that are not there, where more than one tensor crosses a cut, and for a graph
    that fixes the number of samples.
    """
    Activations(model)  # an operator that nobody knows hides shapes, too
    end = last or _own_logits(model, classes)
    order = _ordered(model, cuts, end)
    entry = model.graph.input[0].name
    for tensor in order[:-1]:
        if crossing := _crossing(model, tensor, end):
            raise ConfigError(
                f"the cut at {tensor!r} is crossed by {', '.join(map(repr, crossing[:3]))} too, where just "
                "one tensor can be sent on: a skip connection goes around it; cut where a block ends"
            )
    try:
        extractor = Extractor(model)
        parts = [extractor.extract_model([a], [b]) for a, b in zip([entry, *order], order, strict=False)]
        whole = extractor.extract_model([entry], order)
    except ValueError as error:
        raise ConfigError(f"the graph cannot be cut: {error}") from error
    given = Activations(whole)(example)
    found = tuple(Cut(name, array.shape[1:]) for name, array in zip(order, given, strict=True))
    _check_parts(parts, example, given)
    return CutGraph(tuple(parts), found, whole, own_exit=last is None)


class Activations:
    """A graph in ONNX Runtime, giving all its outputs."""

    def __init__(self, model: onnx.ModelProto, threads: int = 1) -> None:
        """Load a graph; raises ConfigError for operators that ONNX Runtime lacks."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _SILENT
        options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base of their own
            raise ConfigError(f"ONNX Runtime cannot run the graph: {first_line(error)}") from error
        self._entry = model.graph.input[0].name

    def __call__(self, inputs: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Inputs (N, ...) to outputs (N, ...); raises ConfigError where N is fixed or types do not fit."""
        try:
            outputs: list[NDArray[Any]] = self._session.run(None, {self._entry: inputs})
        except Exception as error:
            raise ConfigError(
                f"the graph cannot run {len(inputs)} samples at once: {first_line(error)}; export it again "
                "with a free (dynamic) number of samples"
            ) from error
        for info, output in zip(self._session.get_outputs(), outputs, strict=True):
            if output.dtype != np.float32 or not 2 <= output.ndim <= 4 or len(output) != len(inputs):  # noqa: PLR2004
                raise ConfigError(
                    f"{info.name!r} is {output.dtype} of shape {output.shape} for {len(inputs)} samples, "
                    "expected float32 of two to four dimensions with the samples first; cut elsewhere, or "
                    "export the graph again with a free (dynamic) number of samples"
                )
        return outputs


def with_exit(part: onnx.ModelProto, head: bytes, *, last: bool) -> bytes:
    """A stage graph: a part of the network, and an exit that takes what it gives.

    `head` takes "input" and gives "score" and "label". The stage has the names that devices expect: "input",
    "activation" unless it is the `last`, "score" and "label".
    """
    entry, (given,) = part.graph.input[0].name, part.graph.output
    exit_ = onnx.load_from_string(head)
    opset = max(_opset(part), _opset(exit_))
    try:
        body, exit_ = (
            m if _opset(m) == opset else version_converter.convert_version(m, opset) for m in (part, exit_)
        )
        body.ir_version = exit_.ir_version = max(body.ir_version, exit_.ir_version)
        model = compose.merge_models(
            body,
            exit_,
            io_map=[(given.name, "input")],
            outputs=[*([] if last else [f"body.{given.name}"]), "exit.score", "exit.label"],
            prefix1="body.",
            prefix2="exit.",
        )
    except Exception as error:  # the converter knows no common base
        raise ConfigError(f"an exit cannot be put at {given.name!r}: {first_line(error)}") from error
    # The operator sets of both are listed, and they are the same.
    del model.opset_import[len(body.opset_import) :]
    _rename(
        model.graph,
        {
            f"body.{entry}": "input",
            f"body.{given.name}": "activation",
            "exit.score": "score",
            "exit.label": "label",
        },
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _own_logits(model: onnx.ModelProto, classes: int) -> str:
    """The network's one output if it tells the classes apart, or what its softmax is of."""
    outputs = [(output.name, _sizes(output)) for output in model.graph.output]
    if len(outputs) != 1 or outputs[0][1][1:] != (classes,):
        gives = ", ".join(f"{name} of shape ({_shown(sizes)})" for name, sizes in outputs)
        raise ConfigError(
            f"the graph gives {gives}, the data set has {classes} classes; name the tensor before its "
            f"classifier with --last, and that gets a new exit. Its last tensors: "
            f"{', '.join(node.output[0] for node in model.graph.node[-5:])}"
        )
    maker = next((node for node in model.graph.node if outputs[0][0] in node.output), None)
    return str(maker.input[0] if maker and maker.op_type == "Softmax" else outputs[0][0])


def _ordered(model: onnx.ModelProto, cuts: Sequence[str], end: str) -> list[str]:
    """The cuts in the order in which they are computed, then `end`."""
    place = {name: number for number, node in enumerate(model.graph.node) for name in node.output}
    for name in (*cuts, end):
        if name not in place:
            near = get_close_matches(name, place, n=4, cutoff=0.4) or list(place)[:8]
            raise ConfigError(f"the graph has no tensor {name!r}; near it: {', '.join(near)}")
    if len({*cuts, end}) != len(cuts) + 1:
        raise ConfigError("a tensor is named twice; name each cut once, and none that is the end")
    order = sorted(cuts, key=lambda name: place[name])
    used = needed(model.graph.node, end)
    for name in order:
        if not any(name in node.output for node in used):
            raise ConfigError(
                f"{end!r}, where the network ends, does not follow from {name!r}; cut elsewhere"
            )
    return [*order, end]


def _crossing(model: onnx.ModelProto, cut: str, end: str) -> list[str]:
    """The tensors besides `cut` that what comes after it takes from what comes before."""
    before = needed(model.graph.node, cut)
    made = {name for node in before for name in node.output}
    varying = varying_tensors(model.graph)
    made.add(model.graph.input[0].name)
    after = [node for node in needed(model.graph.node, end) if node not in before]
    return sorted({name for node in after for name in node.input} & made & varying - {cut})


def _check_parts(
    parts: Iterable[onnx.ModelProto], example: NDArray[np.float32], expected: Sequence[NDArray[Any]]
) -> None:
    activations = [example[index : index + 1] for index in range(len(example))]
    for part, wanted in zip(parts, expected, strict=True):
        run = Activations(part)
        activations = [run(activation)[0] for activation in activations]
        allowed = _TOLERANCE * np.abs(wanted).max()
        if not np.allclose(np.concatenate(activations), wanted, rtol=_TOLERANCE, atol=allowed):
            raise ConfigError(
                f"one by one, samples give other values at {part.graph.output[0].name!r} than together: the "
                "graph fixes their number, or mixes them; export it again with a free (dynamic) number of "
                "samples"
            )


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for side in (node.input, node.output):
            side[:] = [names.get(name, name) for name in side]


def _sizes(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(size.dim_value for size in value.type.tensor_type.shape.dim)


def _shown(sizes: Sequence[int]) -> str:
    return ", ".join(str(size or "N") for size in sizes)


def _opset(model: onnx.ModelProto) -> int:
    return int(next(known.version for known in model.opset_import if known.domain in {"", "ai.onnx"}))
