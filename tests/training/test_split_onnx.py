from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from mqtt_mdi.datasets.labelled import Labelled
from mqtt_mdi.datasets.normalisation import Normalisation
from mqtt_mdi.engine.onnx import OnnxStage
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.export.assemble import Evaluation, StageGraph, stage_spec
from mqtt_mdi.export.convert import Encoding, convert_graphs
from mqtt_mdi.export.cost import cost_of
from mqtt_mdi.export.graph import stage_graph
from mqtt_mdi.models.stage import Stage
from mqtt_mdi.splitting.heads import head_for
from mqtt_mdi.splitting.onnx_file import Activations, CutGraph, cut_graph, with_exit
from mqtt_mdi.splitting.read_onnx import read_graph

SHAPE = (3, 8, 8)
EXAMPLE = np.random.default_rng(1).random((2, *SHAPE), np.float32)
FREE: tuple[int | str, ...] = ("N", *SHAPE)

SIZES = {"one": [1, 4], "four": [4], "zero": [0]}

Node = tuple[str, Sequence[str], str, dict[str, object]]

STRAIGHT: list[Node] = [
    ("Conv", ["picture", "w1"], "c1", {"pads": [1] * 4}),
    ("Relu", ["c1"], "r1", {}),
    ("Conv", ["r1", "w2"], "c2", {"pads": [1] * 4}),
    ("Add", ["c2", "r1"], "sum", {}),
    ("GlobalAveragePool", ["sum"], "mean", {}),
    ("Flatten", ["mean"], "flat", {}),
    ("Gemm", ["flat", "w3"], "logits", {"transB": 1}),
]


def graph(
    folder: Path,
    nodes: Sequence[Node] = STRAIGHT,
    takes: Sequence[int | str] = FREE,
    outputs: Sequence[str] = ("logits",),
    kind: int = TensorProto.FLOAT,
    opset: int = 13,
) -> Path:
    """A small residual network of five classes in a file."""
    rng = np.random.default_rng(2)
    weights = {"w1": (4, 3, 3, 3), "w2": (4, 4, 3, 3), "w3": (5, 4)}
    used = {name for _, inputs, _, _ in nodes for name in inputs}
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node(op, inputs, [given], **more) for op, inputs, given, more in nodes],
            "small",
            [helper.make_tensor_value_info("picture", kind, takes)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", None]) for name in outputs],
            [
                numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
                for name, shape in weights.items()
                if name in used
            ]
            + [numpy_helper.from_array(np.array(s), n) for n, s in SIZES.items() if n in used],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )
    path = folder / "small.onnx"
    onnx.save(model, path)
    return path


def cut(path: Path, *cuts: str, last: str | None = None) -> CutGraph:
    return cut_graph(read_graph(path, SHAPE), cuts, last, 5, EXAMPLE)


def whole(path: Path, x: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"picture": x})[0]


@pytest.mark.parametrize("opset", [13, 21])
def test_stages_give_what_the_file_gives(tmp_path: Path, opset: int) -> None:
    path = graph(tmp_path, opset=opset)
    found = cut(path, "sum")
    assert [(c.tensor, c.shape) for c in found.cuts] == [("sum", (4, 8, 8)), ("logits", (5,))]
    torch.manual_seed(1)
    head = head_for((4, 8, 8), 5).eval()
    x = np.random.default_rng(3).random((3, *SHAPE), np.float32)
    expected = whole(path, x)
    exits: list[nn.Module] = [head, nn.Identity()]
    for index, (part, tensor, exit_) in enumerate(zip(found.parts, found.cuts, exits, strict=True)):
        scored = stage_graph(Stage(nn.Identity(), exit_), torch.rand(2, *tensor.shape), 2.0, last=True)
        stage = with_exit(part, scored, last=index == 1)
        spec = stage_spec(StageGraph(stage, 2.0), index + 1)
        output = OnnxStage(stage, spec).run(x)
        if index == 0:
            assert spec.macs == 8 * 8 * 4 * 9 * (3 + 4) + spec.exit_macs
            assert output.activation is not None
            with torch.no_grad():
                logits = head(torch.from_numpy(output.activation))
            np.testing.assert_array_equal(output.labels, logits.argmax(1))
            np.testing.assert_allclose(
                output.scores, torch.softmax(logits / 2, 1).amax(1), rtol=1e-2, err_msg="half weights"
            )
            x = output.activation
    np.testing.assert_array_equal(output.labels, expected.argmax(1))
    scores = np.exp(expected / 2).max(1) / np.exp(expected / 2).sum(1)
    np.testing.assert_allclose(output.scores, scores, rtol=1e-3)


def test_cuts_in_order_and_a_new_end(tmp_path: Path) -> None:
    found = cut(graph(tmp_path), "sum", "r1", last="flat")
    assert [c.tensor for c in found.cuts] == ["r1", "sum", "flat"]
    assert not found.own_exit
    given = Activations(found.whole)(EXAMPLE)
    assert [array.shape for array in given] == [(2, 4, 8, 8), (2, 4, 8, 8), (2, 4)]


def test_a_softmax_at_the_end_is_not_taken_twice(tmp_path: Path) -> None:
    path = graph(tmp_path, [*STRAIGHT, ("Softmax", ["logits"], "p", {})], outputs=["p"])
    assert cut(path, "sum").cuts[-1].tensor == "logits"


@pytest.mark.parametrize(
    "flatten",
    [
        STRAIGHT[5],
        ("Reshape", ["mean", "one"], "flat", {}),
        ("Reshape", ["mean", "one"], "flat", {"allowzero": 1}),
    ],
)
def test_a_file_for_one_picture_is_made_to_take_more(tmp_path: Path, flatten: Node) -> None:
    path = graph(tmp_path, [*STRAIGHT[:5], flatten, STRAIGHT[6]], takes=(1, *SHAPE), opset=14)
    found = cut(path, "sum")
    (_, logits) = Activations(found.whole)(EXAMPLE)
    np.testing.assert_allclose(logits[1:], whole(path, EXAMPLE[1:]), rtol=1e-4)


@pytest.mark.parametrize(
    ("cuts", "last", "message"),
    [
        (["sun"], None, "no tensor 'sun'; near it: sum"),
        (["picture"], None, "no tensor 'picture'"),
        (["sum"], "summ", "no tensor 'summ'"),
        (["sum", "sum"], None, "named twice"),
        (["logits"], None, "named twice"),
        (["c2"], None, "the cut at 'c2' is crossed by 'r1' too"),
        (["flat"], "sum", "'sum', where the network ends, does not follow from 'flat'"),
    ],
)
def test_cuts_that_do_not_fit(tmp_path: Path, cuts: list[str], last: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cut(graph(tmp_path), *cuts, last=last)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(graph(tmp_path).read_bytes()[:100])
    for path in (damaged, tmp_path / "nothing.onnx"):
        with pytest.raises(ConfigError, match=f"cannot read {path}"):
            read_graph(path, SHAPE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"takes": ("N", 8, 8, 3)}, r"of shape \(N, 8, 8, 3\), the pictures are \(N, 3, 8, 8\)"),
        ({"takes": ("N", 192)}, r"of shape \(N, 192\)"),
        ({"kind": TensorProto.DOUBLE}, "takes picture, expected one float32 tensor|cannot read"),
        ({"outputs": ["logits", "flat"]}, "the graph gives logits .*, flat .*, the data set has 5 classes"),
        (
            {"outputs": ["flat"]},
            r"the graph gives flat of shape \(N, 4\), the data set has 5 classes; .*--last",
        ),
        (
            {
                "takes": (1, *SHAPE),
                "nodes": [
                    *STRAIGHT[:5],
                    ("Reshape", ["mean", "four"], "v", {}),
                    ("Unsqueeze", ["v", "zero"], "flat", {}),
                    STRAIGHT[6],
                ],
            },
            "free .dynamic. number of samples",
        ),
        (
            {"nodes": [*STRAIGHT[:2], ("Conv", ["r1", "w2"], "c2", {}), *STRAIGHT[3:]]},
            "the shapes of its tensors cannot be told",
        ),
    ],
)
def test_graphs_that_do_not_fit(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cut(graph(tmp_path, **changes), "r1")  # type: ignore[arg-type]


def test_branches_and_unknown_operators(tmp_path: Path) -> None:
    one = helper.make_graph([], "then", [], [])
    branching: list[Node] = [*STRAIGHT, ("If", ["flag"], "x", {"then_branch": one, "else_branch": one})]
    for nodes, message in (
        (branching, "cannot read|has the operator If"),
        ([("Nonsense", ["picture"], "c1", {}), *STRAIGHT[1:]], "cannot read .*Nonsense"),
    ):
        with pytest.raises(ConfigError, match=message):
            cut(graph(tmp_path, nodes), "r1")
    path = graph(tmp_path, STRAIGHT)
    model = onnx.load(path)
    model.graph.node[1].op_type, model.graph.node[1].domain = "Secret", "my.operators"
    model.opset_import.append(helper.make_opsetid("my.operators", 1))
    onnx.save(model, path)
    with pytest.raises(ConfigError, match=r"operator my\.operators:Secret, which ONNX does not define"):
        cut(path, "r1")
    opsets = [helper.make_opsetid("", 13)]
    relu = helper.make_node("Relu", ["x"], ["y"])
    model.functions.append(helper.make_function("my.operators", "Secret", ["x"], ["y"], [relu], opsets))
    onnx.save(model, path)
    assert [c.tensor for c in cut(path, "r1").cuts] == ["r1", "logits"]


def constants(model: onnx.ModelProto) -> None:
    """Keep weights as Constant nodes."""
    for tensor in model.graph.initializer:
        model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    del model.graph.initializer[:]


def old_inputs(model: onnx.ModelProto) -> None:
    """List weights as inputs, too, as ONNX once required."""
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )


def local_function(model: onnx.ModelProto) -> None:
    """Have the first convolution in a function of the file's own."""
    opsets = [helper.make_opsetid("", 13)]
    body = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)
    model.functions.append(helper.make_function("mine", "Twice", ["x", "w"], ["y"], [body], opsets))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    model.graph.node[0].CopyFrom(helper.make_node("Twice", ["picture", "w1"], ["c1"], domain="mine"))


def listed_shape(model: onnx.ModelProto) -> None:
    """For one picture, reshaped by a Constant that is a list."""
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    model.graph.node[5].CopyFrom(helper.make_node("Reshape", ["mean", "shape"], ["flat"]))
    model.graph.node.insert(0, helper.make_node("Constant", [], ["shape"], value_ints=[1, 4]))


@pytest.mark.parametrize("change", [constants, old_inputs, local_function, listed_shape])
def test_files_as_others_write_them(change: Callable[[onnx.ModelProto], None], tmp_path: Path) -> None:
    plain = graph(tmp_path)
    expected = whole(plain, EXAMPLE)
    ours = tmp_path / "theirs.onnx"
    model = onnx.load(plain)
    change(model)
    onnx.save(model, ours)
    found = cut(ours, "sum")
    np.testing.assert_allclose(Activations(found.whole)(EXAMPLE)[1], expected, rtol=1e-4)
    own_exit = stage_graph(Stage(nn.Identity(), nn.Identity()), torch.rand(2, 5), 1.0, last=True)
    last, last_of_plain = (with_exit(f.parts[-1], own_exit, last=True) for f in (found, cut(plain, "sum")))
    assert cost_of(last) == cost_of(last_of_plain)


def encoded(path: Path, encoding: Encoding, std: float) -> list[StageGraph]:
    """The stages of a file, encoded; `std` is that of the pictures, which says how large activations are."""
    pictures = Labelled(np.arange(60 * 192, dtype=np.uint8).reshape(60, *SHAPE), np.arange(60) % 5)
    normalise = Normalisation((0.5,) * 3, (std,) * 3)
    found = cut(path, "sum")
    exits = [Stage(nn.Identity(), head_for((4, 8, 8), 5)), Stage(nn.Identity(), nn.Identity())]
    stages = []
    for part, tensor, exit_ in zip(found.parts, found.cuts, exits, strict=True):
        scored = stage_graph(exit_, torch.rand(2, *tensor.shape), 1.0, last=True)
        stages.append(StageGraph(with_exit(part, scored, last=exit_ is exits[-1]), 1.0))
    return convert_graphs(stages, encoding, Evaluation(tuple("abcde"), normalise, pictures, pictures, 0.01))


def test_notes_inside_a_stage_do_not_say_what_it_takes(tmp_path: Path) -> None:
    """From opset 18 on a stage keeps what is noted of its tensors, also once it is encoded."""
    sent = encoded(graph(tmp_path, opset=21), Encoding("int8"), 0.5)
    assert [stage_spec(stage, 1).input_type for stage in sent] == ["float32", "int8"]


def test_what_float16_does_not_hold_is_not_sent_in_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"stage 1 gives .* float16 ends at 65,504: choose --wire int8"):
        encoded(graph(tmp_path), Encoding("float16"), 1e-5)
