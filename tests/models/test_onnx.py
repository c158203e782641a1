"""ONNX files: what they return keeps its type, and what onnxruntime raises names the file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import misure
from misure.errors import MisureError

onnx = pytest.importorskip("onnx", reason="writing ONNX files needs onnx")
pytest.importorskip("onnxruntime", reason="needs onnxruntime")

IMAGE = torch.zeros(1, 16, 16)
IMAGE[:, 2:8, 2:8] = 0.5
IMAGE[:, 10:14, 10:14] = 1.0
FLOAT, HALF, INT, UINT8 = (getattr(onnx.TensorProto, name) for name in ("FLOAT", "FLOAT16", "INT64", "UINT8"))


@pytest.fixture
def load(tmp_path):
    """Write nodes from ``x`` and the logits ``z`` of dark, nothing, grey and bright, and load the file."""

    def make(nodes, outputs, *, takes=FLOAT, side="h", **options) -> misure.SegmentationModel:
        number = np.float16 if takes == HALF else np.float32
        weight = np.array([0, 0, 10 / 3, 20 / 3], number).reshape(4, 1, 1, 1)
        bias = np.array([0, -100, -0.5, -3], number)
        made = [
            onnx.helper.make_node("Conv", ["x", "w", "b"], ["z"]),
            *(onnx.helper.make_node(*n[0], **n[1]) for n in nodes),
        ]
        graph = onnx.helper.make_graph(
            made,
            "network",
            [onnx.helper.make_tensor_value_info("x", takes, ["n", 1, side, "w"])],
            [onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
            [
                onnx.numpy_helper.from_array(weight, "w"),
                onnx.numpy_helper.from_array(bias, "b"),
                onnx.numpy_helper.from_array(np.array([1, 7]), "seven"),
            ],
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
        model.ir_version = 9
        onnx.save(model, tmp_path / "net.onnx")
        return misure.load_model(tmp_path / "net.onnx", **options)

    return make


def sizes(model) -> dict[int, int]:
    return {e.target.class_id: e.target.size for e in misure.explain(model, IMAGE, "all", "sufficient_region")}


ARGMAX = (("ArgMax", ["z"], ["y"]), {"axis": 1, "keepdims": 0})
SHARES = (("Softmax", ["z"], ["s"]), {"axis": 1})
BYTES = (("Cast", ["y"], ["u"]), {"to": UINT8})
FLOATS = (("Cast", ["y"], ["f"]), {"to": FLOAT})


@pytest.mark.parametrize(
    ("nodes", "outputs", "options"),
    [
        ([], {"z": FLOAT}, {}),
        ([], {"z": HALF}, {"takes": HALF}),
        ([SHARES], {"s": FLOAT}, {}),
        ([ARGMAX], {"y": INT}, {}),
        ([ARGMAX, BYTES], {"u": UINT8}, {}),
        ([ARGMAX, FLOATS], {"f": FLOAT}, {"output": "class_numbers"}),
        ([(("Relu", ["z"], ["logits"]), {}), SHARES], {"s": FLOAT, "logits": FLOAT}, {}),
    ],
    ids=["logits", "half", "softmax", "int64", "uint8", "float numbers", "the one named logits of two"],
)
def test_every_kind_of_output_gives_the_same_classes(load, nodes, outputs, options):
    assert sizes(load(nodes, outputs, **options)) == {2: 36, 3: 16}


def test_of_several_outputs_the_first_is_taken_and_named(load):
    with pytest.warns(UserWarning, match=r"net.onnx has 2 outputs \(z, s\), of which the first is explained"):
        model = load([SHARES], {"z": FLOAT, "s": FLOAT})
    assert sizes(model) == {2: 36, 3: 16}


@pytest.mark.parametrize(
    ("nodes", "outputs", "options", "message"),
    [
        (
            [(("Reshape", ["z", "seven"], ["r"]), {})],
            {"r": FLOAT},
            {},
            r"net.onnx fails on images of 1 x 1 x 16 x 16 \(.*",
        ),
        ([ARGMAX, FLOATS], {"f": FLOAT}, {}, "values from 0 to 3, all whole"),
        ([], {"z": FLOAT}, {"takes": UINT8}, r"net.onnx (takes tensor\(uint8\)|cannot be read)"),
        ([], {"z": FLOAT}, {"side": 32}, "net.onnx takes images of 1 x 32 x any, not 1 x 16 x 16"),
        ([(("SequenceConstruct", ["z"], ["q"]), {})], {}, {}, "net.onnx returns no tensor"),
    ],
    ids=["a failing node", "float numbers", "bytes as images", "another size", "no output"],
)
def test_what_cannot_be_run_is_one_line_with_the_file_s_name(load, nodes, outputs, options, message):
    with pytest.raises(MisureError, match=message) as caught:
        sizes(load(nodes, outputs, **options))
    assert "\n" not in str(caught.value)
