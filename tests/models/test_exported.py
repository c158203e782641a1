"""Exported programs: what would run code when torch opens it runs nothing here; others give their numbers."""

from __future__ import annotations

import io
import json
import os
import pickle
import warnings
import zipfile

import pytest
import torch
from torch import nn

from misure.errors import MisureError
from misure.models.exported import open_exported
from misure.models.loading import load_model

IMAGES = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(5))
ANY = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
DESCRIPTION, WEIGHTS, CONSTANTS = (
    f"net/{place}"
    for place in (
        "models/model.json",
        "data/weights/model_weights_config.json",
        "data/constants/model_constants_config.json",
    )
)


class Usual(nn.Module):
    """What programs contain: sizes computed from sizes, gradients off, text constants, names with dashes, a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict({"a-1": nn.Conv2d(3, 2, 1), "target": nn.BatchNorm2d(2)})

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            images = 2 * images
        height, width = images.shape[2:]
        padded = nn.functional.pad(images, (0, -width % 32, 0, -height % 32))
        small = nn.functional.gelu(self.blocks["target"](self.blocks["a-1"](padded)), approximate="tanh")[
            :, :, ::2, ::2
        ]
        summed = small + torch.einsum("bchw->bch", small)[..., None]
        return {"out": nn.functional.interpolate(summed, scale_factor=2.0, mode="bilinear")[..., :height, :width]}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return Usual().eval()


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "net.pt2"
    torch.export.save(torch.export.export(network, (IMAGES,), dynamic_shapes=(ANY,)), path)
    return path


def test_a_program_gives_what_the_network_gives(file, network):
    opened, channels = open_exported(file)
    assert channels == 3
    for images in (IMAGES, torch.rand(1, 3, 40, 33)):
        with torch.no_grad():
            assert torch.equal(opened(images)["out"], network(images)["out"])
    assert "blocks.a-1" in dict(opened.named_modules())


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, made: str) -> None:
        self.made = made

    def __reduce__(self):
        return os.mkdir, (self.made,)


def saved(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def examples(members, made):
    members["net/data/sample_inputs/model.pt"] = saved(Trap(made))


def pickled_weight(members, made):
    config = json.loads(members[WEIGHTS])
    first = next(iter(config["config"].values()))
    first["use_pickle"] = True
    members |= {WEIGHTS: json.dumps(config).encode(), f"net/data/weights/{first['path_name']}": saved(Trap(made))}


def opaque_constant(members, made):
    constant = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": False, "tensor_meta": None}
    members[CONSTANTS] = json.dumps({"config": {"trap": constant}}).encode()
    members["net/data/constants/opaque_obj_0"] = pickle.dumps(Trap(made))


def weights_of_earlier_versions(members, made):
    members["net/data/weights/model.pt"] = saved({"weight": Trap(made)})


def described(change):
    def rewrite(members, made):
        program = json.loads(members[DESCRIPTION])
        members[DESCRIPTION] = json.dumps(change(program, f"__import__('os').mkdir({made!r})", made)).encode()

    return rewrite


def expression(program, code, _):
    graph = program["graph_module"]["graph"]
    graph["tensor_values"]["images"]["sizes"][0]["as_expr"]["expr_str"] = code
    return program


def expression_in_disguise(program, code, _):
    return expression(program, {"as_string": code}, _)


def expression_in_an_expression(program, code, _):
    return expression(program, f"Integer({code!r})", _)


def argument(program, code, _):
    text = json.dumps(program)
    return json.loads(text.replace('"images"', json.dumps(f"images={code}")))


def operator(program, _, made):
    node = {"target": "torch.os.mkdir", "inputs": [{"name": "", "arg": {"as_string": made}, "kind": 1}], "outputs": []}
    program["graph_module"]["graph"]["nodes"].insert(0, node | {"metadata": {}, "name": "made"})
    return program


def file_operator(program, _, made):
    (first,) = [n for n in program["graph_module"]["graph"]["nodes"] if n["target"] == "torch.ops.aten.conv2d.default"]
    first["target"] = "torch.ops.aten.from_file.default"
    return program


def keys_of_the_result(program, code, _):
    signature = program["graph_module"]["module_call_graph"][0]["signature"]
    signature["out_spec"] = signature["out_spec"].replace("out", '{\\"__enum__\\": 1, \\"fqn\\": \\"antigravity:a\\"}')
    return program


def native_library(members, _):
    members["net/data/aotinductor/model/model.so"] = b"\x7fELF"


TRAPS = [examples, pickled_weight, opaque_constant, weights_of_earlier_versions, native_library]
TRAPS += [
    described(change)
    for change in (
        expression,
        expression_in_disguise,
        expression_in_an_expression,
        argument,
        operator,
        file_operator,
        keys_of_the_result,
    )
]


@pytest.mark.parametrize("ending", [".pt2", ".pt"])
@pytest.mark.parametrize("trap", TRAPS)
def test_nothing_that_a_file_brings_is_run(file, network, tmp_path, trap, ending):
    """All but the last three pickles and names run code in torch.export.load of PyTorch 2.14."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    made, path = tmp_path / "made", tmp_path / f"net{ending}"
    trap(members, str(made))
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    if trap is examples:  # nothing is computed with them
        with torch.no_grad():
            assert torch.equal(load_model(path).network(IMAGES)["out"], network(IMAGES)["out"])
    else:
        with pytest.raises(MisureError, match=rf"net{ending} is not opened, since .* would be run as code") as caught:
            load_model(path)
        assert "\n" not in str(caught.value)
    assert not made.exists()


def test_files_of_earlier_versions_are_opened(network, tmp_path):
    from torch._export.serde.serialize import SCHEMA_VERSION, serialize

    parts = serialize(torch.export.export(network, (IMAGES,), dynamic_shapes=(ANY,)))
    with zipfile.ZipFile(tmp_path / "old.pt2", "w") as archive:
        archive.writestr("version", ".".join(map(str, SCHEMA_VERSION)))
        archive.writestr("serialized_exported_program.json", parts.exported_program)
        for name in ("state_dict", "constants", "example_inputs"):
            archive.writestr(f"serialized_{name}.pt", getattr(parts, name))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(open_exported(tmp_path / "old.pt2")[0](IMAGES)["out"], network(IMAGES)["out"])


def test_a_compressed_file_is_refused(file, tmp_path):
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(tmp_path / "net.pt2", "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(MisureError, match=r"net\.pt2 is compressed"):
        load_model(tmp_path / "net.pt2")
