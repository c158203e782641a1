"""Networks of the Hugging Face Hub by id: fetched from a server on this machine, once, and only what is needed."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from explained_networks import explained
from file_host import Handler, closed_port, running_host

from misure.cli import console as cli
from misure.errors import MisureError
from misure.models.loading import load_model

transformers = pytest.importorskip("transformers", reason="needs transformers")
constants = pytest.importorskip("huggingface_hub.constants")

COMMIT = "c0ffee" + "0" * 34
TINY = {"depths": [1] * 4, "hidden_sizes": [4, 8, 8, 16], "num_attention_heads": [1] * 4, "decoder_hidden_size": 8}
IMAGE = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))


class Hub(Handler):
    """Answers as the Hub does, whose readers ask for a file's hash and commit first."""

    def do_HEAD(self) -> None:  # noqa: N802 - the name of http.server
        self.send_response(200 if self.path in self.server.files else 404)
        body = self.server.files.get(self.path, b"")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.md5(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one network in it, beside files that nobody should fetch."""
    torch.manual_seed(0)
    folder = tmp_path / "here"
    config = transformers.SegformerConfig(**TINY, id2label={0: "sky", 1: "sea"}, label2id={"sky": 0, "sea": 1})
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    described = {"image_processor_type": "SegformerImageProcessor", "image_mean": [0.1, 0.2, 0.3]}
    (folder / "preprocessor_config.json").write_text(json.dumps(described))
    for name in ("modeling_own.py", "pytorch_model.bin"):
        (folder / name).write_bytes(b"import nothing")
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    tree = [{"type": "file", "path": name, "size": len(body), "oid": "0" * 40} for name, body in contents.items()]
    files = {f"/owner/name/resolve/{COMMIT}/{name}": body for name, body in contents.items()}
    files["/api/models/owner/name/revision/main"] = json.dumps({"id": "owner/name", "sha": COMMIT}).encode()
    files["/api/models/owner/name/revision/v2"] = files["/api/models/owner/name/revision/main"]
    files[f"/api/models/owner/name/tree/{COMMIT}?recursive=true&expand=false"] = json.dumps(tree).encode()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").touch()
    with running_host(files) as host:
        host.RequestHandlerClass = Hub
        monkeypatch.setenv("HF_ENDPOINT", host.url)
        yield host


def fetched_names(host) -> set[str]:
    return {path.rpartition("/")[2] for path in host.asked if "/resolve/" in path}


def test_a_network_is_fetched_by_id_without_pickles_and_code(hub):
    model = load_model("owner/name")
    assert (model.title, model.class_names, model.mean) == ("owner/name", ("sky", "sea"), (0.1, 0.2, 0.3))
    assert fetched_names(hub) == {"config.json", "model.safetensors", "preprocessor_config.json"}
    explained(model, IMAGE)


def test_without_a_connection_it_is_what_was_fetched_before(hub, monkeypatch):
    first = load_model("owner/name@v2")
    monkeypatch.setenv("HF_ENDPOINT", closed_port())
    again = load_model("owner/name@v2")
    assert again.title == "owner/name@v2"
    with torch.no_grad():
        assert torch.equal(first(IMAGE[None]), again(IMAGE[None]))


@pytest.mark.parametrize("name", ["owner/other", "owner/name@v3"])
@pytest.mark.parametrize("connected", [True, False])
def test_what_cannot_be_had_is_one_line(hub, monkeypatch, name, connected):
    if not connected:
        monkeypatch.setenv("HF_ENDPOINT", closed_port())
    with pytest.raises(MisureError, match=f"{name} is no path here, and as an id it cannot be had") as caught:
        load_model(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["owner/net.pt2", "a/b/c", "absent", "/owner/name", "../name", "here/net"])
def test_other_names_are_paths_and_ask_nobody(hub, name):
    with pytest.raises(MisureError, match="there is no"):
        load_model(name)
    assert not hub.asked


def test_the_commands_take_an_id(hub, capsys):
    cli.main(["layers", "owner/name", "size=64"])
    assert "layer of the CAM methods: segformer." in capsys.readouterr().out
    cli.main(["explain", "photo.png", "--model", "owner/name", "plan_only=true"])
    assert "download: owner/name of the Hugging Face Hub" in capsys.readouterr().out
