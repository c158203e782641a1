"""The ten-line use: one call, plots, saved folders, and errors a user can act on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from oracles.toys import Convolutional, PerPixel
from PIL import Image as Picture
from torchvision import tv_tensors

import misure
from misure.explainers import MSR
from misure.models.compute import Compute
from misure.models.wrapper import frozen
from misure.target import make_targets

IMAGE = torch.tensor([[[0.9, 0.1, 0.8, 0.2], [0.7, 0.6, 0.1, 0.0], [0.0, 0.9, 0.1, 0.3]]])
FAST = {"n_iterations": 3, "mask_size": 4}
NAMES = ["arrays.npz", "explanation.png", "manifest.json", "saliency.npy"]


def test_the_ten_line_use(tmp_path):
    explanation = misure.explain(PerPixel(), IMAGE, target=1, **FAST)
    assert explanation.method == "msr"
    assert explanation.saliency.shape == explanation.sufficient_region.shape == (3, 4)
    assert explanation.n_dilations == 0
    assert 0 <= explanation.dice_explained <= 1
    assert explanation.perturbation_ratio >= 0
    assert explanation.seconds > 0
    assert len(explanation.curve) == 3
    assert isinstance(explanation.plot(), Figure)
    assert explanation.save(tmp_path / "result").is_dir()


def test_one_image_gives_one_explanation_and_a_batch_a_list():
    assert isinstance(misure.explain(PerPixel(), IMAGE, 1, **FAST), misure.Explanation)
    batch = misure.explain(PerPixel(), IMAGE.expand(3, -1, -1, -1), 1, **FAST)
    assert isinstance(batch, list)
    assert [e.batch_size for e in batch] == [3, 3, 3]
    assert len(misure.explain(PerPixel(), IMAGE[None], 1, **FAST)) == 1


def ready_targets(n: int) -> list[misure.Target]:
    with frozen(misure.SegmentationModel(PerPixel()), Compute("32"), torch.device("cpu")) as network:
        return make_targets(network, IMAGE.expand(n, -1, -1, -1), 1)


@pytest.mark.parametrize("target", [1, np.int64(1), None, "bright", *ready_targets(1)], ids=lambda t: type(t).__name__)
def test_every_way_to_name_the_target_gives_the_same(target):
    model = misure.SegmentationModel(PerPixel(), class_names=("dark", "bright"))
    explanation = misure.explain(model, IMAGE, target, **FAST)
    assert torch.equal(explanation.target.region, IMAGE[0] > 0.5)
    assert torch.equal(explanation.saliency, misure.explain(PerPixel(), IMAGE, 1, **FAST).saliency)


def test_ready_targets_and_ready_explainers():
    images = IMAGE.expand(2, -1, -1, -1)
    explanations = misure.explain(PerPixel(), images, ready_targets(2), MSR(**FAST))
    assert torch.equal(explanations[1].saliency, misure.explain(PerPixel(), IMAGE, 1, **FAST).saliency)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("method", ["msr", "seg_grad_cam"])
def test_gradients_are_found_whatever_the_caller_s_mode(mode, method):
    parameters = FAST if method == "msr" else {"layer": "bottleneck"}
    toy = Convolutional(seed=4)
    expected = misure.explain(toy, IMAGE, 1, method, **parameters)
    with mode():
        explanation = misure.explain(toy, IMAGE.clone(), 1, method, **parameters)
    assert torch.equal(explanation.saliency, expected.saliency)


def test_the_image_is_neither_changed_nor_given_a_gradient():
    image = IMAGE.clone().requires_grad_()
    explanation = misure.explain(PerPixel(), image, 1, **FAST)
    assert image.grad is None
    assert torch.equal(image, IMAGE)
    assert not explanation.saliency.requires_grad
    assert not explanation.image.requires_grad


def test_parameters_are_plain_values():
    summary = misure.explain(PerPixel(), IMAGE, 1, "rise", n_masks=4).summary()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["parameters"]["thresholds"] == [0.2, 0.4]
    assert summary["prediction_size"] == 5


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_plots_show_the_raw_map_on_its_own_scale(channels):
    explanation = misure.explain(PerPixel(), IMAGE.expand(channels, -1, -1), 1, "rise", n_masks=4)
    figure = explanation.plot()
    maps = [axes.images[-1] for axes in figure.axes if axes.get_title().startswith("rise")]
    assert len(maps) == 1
    assert np.array_equal(np.asarray(maps[0].get_array()), explanation.saliency.numpy())
    assert maps[0].get_clim() == (0, float(explanation.saliency.max()))


def test_a_saved_folder_holds_everything(tmp_path):
    explanation = misure.explain(PerPixel(), IMAGE, 1, **FAST)
    folder = explanation.save(tmp_path / "new" / "result")
    assert sorted(p.name for p in folder.iterdir()) == NAMES
    assert np.array_equal(np.load(folder / "saliency.npy"), explanation.saliency.numpy())
    with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
        assert sorted(arrays) == ["image", "region", "saliency", "sufficient_region"]
        assert np.array_equal(arrays["sufficient_region"], explanation.sufficient_region.numpy())
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["schema"], manifest["files"]) == (1, NAMES)
    assert manifest["evaluations"][0]["dice_explained"] == explanation.dice_explained
    assert manifest["parameters"]["lam"] == 0.01
    assert manifest["curve"] == list(explanation.curve)
    assert set(manifest["versions"]) == {"misure", "torch"}
    assert matplotlib.image.imread(folder / "explanation.png").ndim == 3


def test_saving_again_replaces_the_folder_and_leaves_nothing_else(tmp_path):
    misure.explain(PerPixel(), IMAGE, 1, **FAST).save(tmp_path / "result")
    second = misure.explain(PerPixel(), IMAGE, 1, "prediction")
    second.save(tmp_path / "result")
    assert json.loads((tmp_path / "result" / "manifest.json").read_text(encoding="utf-8"))["method"] == "prediction"
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


def test_saving_again_keeps_the_user_s_files(tmp_path):
    explanation = misure.explain(PerPixel(), IMAGE, 1, "prediction")
    folder = explanation.save(tmp_path / "result", extra=lambda partial: {"n": (partial / "more.txt").write_text("1")})
    (folder / "notes").mkdir()
    (folder / "notes" / "thesis.txt").write_text("years of work", encoding="utf-8")
    explanation.save(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*NAMES, "notes"])
    assert (folder / "notes" / "thesis.txt").read_text(encoding="utf-8") == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["result"]
    with pytest.raises(misure.MisureError, match="notes there is of something else; choose another folder"):
        explanation.save(folder, extra=lambda partial: {"n": (partial / "notes").write_text("2")})
    assert (folder / "notes" / "thesis.txt").read_text(encoding="utf-8") == "years of work"


def test_of_an_explanation_that_lists_no_files_the_others_are_kept(tmp_path):
    explanation = misure.explain(PerPixel(), IMAGE, 1, "prediction")
    folder = explanation.save(tmp_path / "result")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    del manifest["files"]
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "metrics.json").write_text("old", encoding="utf-8")
    (folder / "thesis.txt").write_text("years of work", encoding="utf-8")
    explanation.save(folder, extra=lambda partial: {"n": (partial / "metrics.json").write_text("new")})
    assert (folder / "metrics.json").read_text(encoding="utf-8") == "new"
    assert (folder / "thesis.txt").read_text(encoding="utf-8") == "years of work"


@pytest.mark.parametrize("step", range(4))
def test_no_kill_loses_the_user_s_files(tmp_path, monkeypatch, step):
    """Whichever renaming is the last: that of the old folder, of the new one, of the first or the second file."""
    explanation = misure.explain(PerPixel(), IMAGE, 1, "prediction")
    folder = explanation.save(tmp_path / "result")
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text(name, encoding="utf-8")
    real, steps = Path.rename, []

    def fail(self, target):
        steps.append(self)
        if len(steps) > step:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(KeyboardInterrupt):
        explanation.save(folder)
    monkeypatch.setattr(Path, "rename", real)
    explanation.save(folder)
    assert sorted(path.read_text(encoding="utf-8") for path in tmp_path.rglob("?.txt")) == ["a.txt", "b.txt"]


@pytest.mark.parametrize(
    ("owner", "step", "error", "raised"),
    [
        (Figure, "savefig", OSError(28, "No space left on device"), misure.MisureError),
        (Path, "rename", OSError(28, "No space left on device"), misure.MisureError),
        (Figure, "savefig", KeyboardInterrupt("No space left on device"), KeyboardInterrupt),
    ],
)
def test_a_failed_or_killed_save_leaves_what_was_there(tmp_path, monkeypatch, owner, step, error, raised):  # noqa: PLR0917
    misure.explain(PerPixel(), IMAGE, 1, "prediction").save(tmp_path / "result")
    before = (tmp_path / "result" / "manifest.json").read_bytes()
    real = Path.rename

    def fail(self, *_args, **_options):
        if step == "rename" and self.name.endswith((".old", "result")):
            return real(self, *_args)
        raise error

    monkeypatch.setattr(owner, step, fail)
    with pytest.raises(raised, match="No space left on device"):
        misure.explain(PerPixel(), IMAGE, 1, **FAST).save(tmp_path / "result")
    assert (tmp_path / "result" / "manifest.json").read_bytes() == before
    if raised is misure.MisureError:
        assert [p.name for p in tmp_path.iterdir()] == ["result"]


def test_saving_never_replaces_what_it_did_not_write(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    explanation = misure.explain(PerPixel(), IMAGE, 1, "prediction")
    for place in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(misure.MisureError, match="it holds something else; choose another folder"):
            explanation.save(place)
    with pytest.raises(misure.MisureError, match=r"cannot write .*; choose another folder"):
        explanation.save(tmp_path / "thesis.txt" / "result")
    for manifest in ('{"manifest_version": 3}', "[]", "no JSON"):  # of a browser's extension, say
        (tmp_path / "manifest.json").write_text(manifest, encoding="utf-8")
        for name in ("saliency.npy", "arrays.npz", "explanation.png"):
            with pytest.raises(misure.MisureError, match="it holds something else"):
                explanation.save(tmp_path)
            (tmp_path / name).touch()
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "years of work"


def test_saving_through_a_link_fills_the_folder_that_it_leads_to(tmp_path):
    explanation = misure.explain(PerPixel(), IMAGE, 1, "prediction")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for _ in range(2):
        assert explanation.save(tmp_path / "link") == tmp_path / "real"
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real" / "manifest.json").is_file()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def broken(value: float, *, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    image = IMAGE.to(dtype).clone()
    image[0, 1, 2] = value
    return image


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (broken(float("nan")), {}, "image 0 of the batch has NaN or infinite pixels: clean it"),
        (torch.stack([IMAGE, broken(float("nan"))]), {}, "image 1 of the batch has NaN"),
        (IMAGE[0], {}, r"images have shape \(3, 4\): expected N x C x H x W"),
        (IMAGE[None, None, None], {}, r"images have shape \(1, 1, 1, 1, 3, 4\)"),
        (IMAGE[:, :0], {}, r"images have shape \(1, 1, 0, 4\)"),
        (IMAGE[None][:0], {}, r"images have shape \(0, 1, 3, 4\)"),
        (broken(1, dtype=torch.uint8), {}, r"images have type torch.uint8: convert and normalise .*image / 255"),
        (IMAGE.numpy().astype(np.uint8), {}, "images have type torch.uint8: convert and normalise"),
        (IMAGE.to(torch.float8_e4m3fn), {}, "images have type torch.float8_e4m3fn"),
        (Picture.new("L", (4, 3)), {}, "the image is a PIL.Image.Image: give a tensor or a NumPy array"),
        ([IMAGE, IMAGE], {}, "the image is a list: give a tensor or a NumPy array, several images stacked into one"),
        (np.ma.masked_less(IMAGE.numpy(), 0), {}, "the image is an array with a mask: fill or convert"),
        (torch.zeros(6, 7, 3), {}, r"images have shape \(1, 6, 7, 3\), channels last: move them"),
        (np.zeros((2, 9, 9, 4)), {}, r"images have shape \(2, 9, 9, 4\), channels last"),
        (torch.zeros(9, 9, 1), {}, "channels last"),
        (IMAGE.expand(3, -1, -1), {}, "images have 3 channels, the network takes 1"),
        (0 * IMAGE, {"target": 1}, r"class 1 was not predicted in this image; predicted classes: \[0\]"),
        (0 * IMAGE, {}, "only background was predicted"),
        (IMAGE, {"target": 2}, "class 2 does not exist: the network has classes 0 to 1"),
        (IMAGE, {"target": -1}, "class -1 does not exist: the network has classes 0 to 1"),
        (IMAGE, {"target": True}, "target=True is a bool, no class: give the number or name"),
        (IMAGE, {"target": torch.tensor([True])}, "target=True is a bool"),
        (IMAGE, {"target": 1.5}, "target=1.5 is a float"),
        (IMAGE, {"target": [1, 1]}, "1 images but 2 targets: pass one target per image"),
        (torch.stack([IMAGE] * 3), {"target": (1, 1)}, "3 images but 2 targets"),
        (IMAGE, {"target": [[1]]}, r"target=\[1\] is a list, no class"),
        (IMAGE, {"target": {1}}, r"target=\{1\} is a set, no class"),
        (IMAGE, {"target": [*ready_targets(1), 1]}, "target mixes ready targets with others"),
        (IMAGE, {"target": "brigth"}, "no class named 'brigth'; close names: bright"),
        (IMAGE, {"region": torch.zeros(3, 4)}, "not predicted inside the region"),
        (torch.stack([IMAGE] * 3), {"region": torch.ones(2, 3, 4)}, "3 images but 2 regions: pass one for all"),
        (IMAGE, {"region": IMAGE[0]}, "region holds values between 0 and 1"),
        (IMAGE, {"region": Picture.new("1", (4, 3))}, "region is a PIL.Image.Image: give a tensor or a NumPy array"),
        (IMAGE, {"region": torch.ones(4, 3)}, r"region has shape \(4, 3\), the image \(3, 4\)"),
        (IMAGE, {"at": (3, 0)}, r"the point \(3, 0\) lies outside the image of 3 x 4"),
        (IMAGE, {"at": (0, 1)}, r"only background was predicted at \(0, 1\)"),
        (IMAGE, {"at": (0, 1), "target": 1}, r"the point \(0, 1\) is not on the object"),
        (IMAGE, {"at": (0, 0), "region": torch.eye(3, 4).roll(1, 0)}, r"the point \(0, 0\) is not on the object"),
        (IMAGE, {"at": (0, 0, 0)}, r"the point \(0, 0, 0\) is not a \(row, column\)"),
        (IMAGE, {"border": 0}, "border=0 is not a whole number of at least 1"),
        (IMAGE, {"target": "all", "at": (0, 0)}, "target='all' means every class, at=... one object"),
        (0 * IMAGE, {"target": "all"}, "only background was predicted: there is no object"),
        (IMAGE, {"target": "all", "region": IMAGE[0] < 0.5}, "only background was predicted inside the region"),
        (IMAGE, {"target": "all", "region": torch.ones(4, 3)}, r"region has shape \(4, 3\), the image \(3, 4\)"),
        (IMAGE, {"target": ready_targets(1), "border": 1}, "region, at or border given beside a ready target"),
        (IMAGE, {"target": [replace(t, multi_label=True) for t in ready_targets(1)]}, "another kind of head"),
        (IMAGE, {"target": ready_targets(2)}, "1 images but 2 targets"),
        (torch.ones(1, 5, 5), {"target": ready_targets(1)}, r"another image size than \(5, 5\)"),
        (IMAGE, {"method": "Grad-CAM"}, "no method 'Grad-CAM'; close names: .*seg_grad_cam"),
        (IMAGE, {"method": " RISE "}, "no method ' RISE '; close names: rise"),
        (IMAGE, {"method": None}, "method=None is no method: give a name, or an explainer such as MSR"),
        (IMAGE, {"method": MSR}, "method=<class .*MSR'> is no method"),
        (IMAGE, {"method": "rize"}, "no method 'rize'; close names: rise"),
        (IMAGE, {"lamda": 0.1}, "msr has no parameter 'lamda'; close names: lam"),
        (IMAGE, {"lam": -1}, "lambda=-1 is not a number of at least 0"),
        (IMAGE, {"method": MSR(), "lr": 1}, "lr given beside a ready explainer"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(image, options, message):
    model = misure.SegmentationModel(PerPixel(), class_names=("dark", "bright"), in_channels=1)
    with pytest.raises(misure.MisureError, match=message) as caught:
        misure.explain(model, image, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (torch.nn.Conv2d(3, 2, 1), r"Conv2d does not take images of 1 x 3 x 4 \(RuntimeError: .*to have 3 channels"),
        (torch.nn.Conv2d(1, 2, 9), r"Conv2d does not take images of 1 x 3 x 4 \(RuntimeError: .*[Kk]ernel size"),
        (torch.nn.Conv2d(1, 2, 1, dtype=torch.cfloat), r"does not take images of 1 x 3 x 4 \(.*Error: "),
        (lambda images: images["pixels"], r"<lambda> does not take images of 1 x 3 x 4 \(IndexError: "),
        (lambda images: 1 / 0, r"\(ZeroDivisionError: division by zero\): give channels, size and type"),
    ],
)
def test_a_network_that_does_not_take_the_image_says_so_in_one_line(network, reason):
    with pytest.raises(misure.MisureError, match=reason) as caught:
        misure.explain(network, IMAGE, 1, "prediction")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None


def same(image: Any, **options: Any) -> bool:
    found = misure.explain(PerPixel(), image, 1, "rise", n_masks=4, **options)
    found = found[-1] if isinstance(found, list) else found
    return torch.equal(found.saliency, misure.explain(PerPixel(), IMAGE, 1, "rise", n_masks=4).saliency)


@pytest.mark.parametrize(
    "image",
    [
        IMAGE.numpy(),
        IMAGE.flip(1).numpy()[:, ::-1],
        np.broadcast_to(IMAGE.numpy(), (2, 1, 3, 4)),
        IMAGE.numpy().astype(">f4"),
        torch.nn.Parameter(IMAGE),
        tv_tensors.Image(IMAGE),
        IMAGE.mT.contiguous().mT,
        torch.inference_mode()(lambda: IMAGE + 0)(),
    ],
    ids=["array", "flipped", "read-only", "byte order", "parameter", "subclass", "not contiguous", "inference"],
)
def test_images_of_every_kind_are_explained_alike(image):
    assert same(image)
    assert same(image, region=np.ones((1, 3, 4), np.uint8))
    assert same(image, region=tv_tensors.Mask(torch.ones(1, 1, 3, 4)))


def test_each_image_of_a_batch_has_its_own_target():
    batch = BRIGHT.expand(2, -1, -1, -1)
    for target in ([1, 2], torch.tensor([1, 2]), np.array([1.0, 2.0]), range(1, 3)):
        found = misure.explain(shapes, batch, target, "prediction")
        assert [(one.target.class_id, one.target.size) for one in found] == [(1, 13), (2, 1)]


def test_numbers_of_numpy_are_saved_as_plain_ones(tmp_path):
    explanation = misure.explain(
        PerPixel(), IMAGE, 1, "rise", n_masks=np.int64(4), thresholds=np.array([0.5]), batch_size=np.int32(2)
    )
    manifest = json.loads((explanation.save(tmp_path / "x") / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["parameters"]["n_masks"] == 4
    assert manifest["parameters"]["thresholds"] == [0.5]


def test_a_network_that_returns_nan_is_named():
    with pytest.raises(misure.MisureError, match="NaN"):
        misure.explain(lambda x: torch.stack([x[:, 0] * 0, x[:, 0] * float("nan")], 1), IMAGE, 1)


SHAPES = torch.tensor([[1, 1, 1, 0, 0, 2], [1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 1, 1], [0, 0, 0, 0, 1, 1]])
"""What :func:`shapes` predicts where the image is bright."""


def shapes(images):
    """Predict the class drawn in ``SHAPES`` wherever the image is above 0.5."""
    logits = [torch.where(c == SHAPES, images[:, 0] - 0.5, -1) for c in (1, 2)]
    return torch.stack([torch.zeros_like(logits[0]), *logits], 1)


BRIGHT = torch.ones(1, 4, 6)


def test_at_explains_the_object_at_a_pixel():
    explanation = misure.explain(shapes, BRIGHT, at=(3, 5), method="prediction")
    assert explanation.target.class_id == 1
    assert explanation.target.region.nonzero().tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]
    assert torch.equal(explanation.target.ignored, (SHAPES == 1) & ~explanation.target.region)
    assert misure.explain(shapes, BRIGHT, at=[0, 5], method="prediction").target.class_id == 2


def test_border_explains_a_rim_and_ignores_the_inside():
    explanation = misure.explain(shapes, BRIGHT, 1, "prediction", at=(1, 1), border=1)
    ring = torch.zeros(4, 6, dtype=torch.bool)
    ring[:3, :3] = True
    ring[1, 1] = False
    assert torch.equal(explanation.target.region, ring)
    assert explanation.target.ignored[1, 1]
    assert explanation.dice_explained == 1


def test_a_region_is_cut_first_then_the_component_then_its_border():
    """Without its middle column the large object falls into two parts; what is cut off makes a border."""
    inside = torch.ones(4, 6)
    inside[:, 1] = 0
    part = misure.explain(shapes, BRIGHT, 1, "prediction", region=inside, at=(0, 2), border=3)
    assert part.target.region.nonzero().tolist() == [[0, 2], [1, 2], [2, 2]]
    inside[:, 1], inside[:, 2] = 1, 0
    inside[1, 0] = 1
    wide = misure.explain(shapes, BRIGHT, 1, "prediction", region=inside, at=(0, 0), border=1)
    assert torch.equal(wide.target.region[:, :3], (SHAPES[:, :3] == 1) & (inside[:, :3] > 0))


def test_all_explains_every_predicted_class_as_if_named():
    together = misure.explain(shapes, BRIGHT, "all", "rise", n_masks=6)
    assert [e.target.class_id for e in together] == [1, 2]
    for one in together:
        alone = misure.explain(shapes, BRIGHT, one.target.class_id, "rise", n_masks=6)
        assert torch.equal(one.saliency, alone.saliency)
        assert one.evaluations == alone.evaluations
    dark = BRIGHT.clone()
    dark[0, 0, 5] = 0  # class 2 is gone
    batch = misure.explain(shapes, torch.stack([BRIGHT, dark]), "all", "prediction", border=1)
    assert [[e.target.class_id for e in one] for one in batch] == [[1, 2], [1]]
    assert torch.equal(batch[1][0].image, dark)
    assert not batch[0][0].target.region[1, 1]
    right = torch.arange(6).expand(4, 6) > 2
    for region, sizes in ((right, {1: 4, 2: 1}), (right & (torch.arange(4) > 0)[:, None], {1: 4})):
        within = misure.explain(shapes, BRIGHT, "all", "prediction", region=region)
        assert {one.target.class_id: one.target.size for one in within} == sizes


@pytest.mark.parametrize("method", [name for name, cls in misure.EXPLAINERS.items() if cls.needs_gradients])
def test_a_method_of_gradients_refuses_a_network_without(method):
    model = misure.SegmentationModel(PerPixel(), differentiable=False, title="net.onnx")
    message = rf"net\.onnx gives no gradients, and {method} needs them: choose another method, out of .*rise"
    with pytest.raises(misure.MisureError, match=message) as caught:
        misure.explain(model, IMAGE, 1, method)
    assert method not in str(caught.value).split("out of")[1].split(", ")
    assert misure.explain(model, IMAGE, 1, "rise", n_masks=2).method == "rise"
