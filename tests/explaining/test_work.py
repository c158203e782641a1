"""``misure explain``: what is written, whole or not at all, and one line for what is wrong."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest
import torch
from ct_files import write_nifti
from image_files import CLASSES, Bright, bright_square, write_checkpoint, write_png
from PIL import Image

import misure
from misure.cli import console as cli
from misure.errors import MisureError
from misure.explaining import work
from misure.explaining.network import class_names_of
from misure.io.download import file_digest
from misure.models.wrapper import SegmentationModel

QUICK = ["explainer=sufficient_region", "precision=32"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


@pytest.fixture
def lent(monkeypatch):
    """Let ``model_file=`` stand for a network made here: files of other makers are tested with their loader."""

    def lend(network=None, **keys):
        model = SegmentationModel(network or Bright(), **{"class_names": CLASSES, **keys})
        monkeypatch.setattr("misure.models.loading.load_model", lambda *_, **__: model)
        Path("network.pt").write_bytes(b"weights")
        return ["model_file=network.pt"]

    return lend


def command(*arguments: str) -> None:
    cli.main(["explain", *QUICK, *arguments])


def failing(capsys, *arguments: str) -> str:
    """Run a command that has to fail; return its one line."""
    with pytest.raises(SystemExit) as ended:
        command(*arguments)
    message = str(ended.value.code)
    assert message.startswith("misure: ")
    assert "\n" not in message
    return message


def folders() -> list[str]:
    return sorted(path.name for path in Path("outputs/explanations").glob("*"))


def read(name: str, file: str):
    return json.loads(Path("outputs/explanations", name, file).read_text())


def test_a_photograph_gets_a_folder_with_everything(lent, capsys):
    pixels = bright_square()
    path = write_png(Path("photo.png"), pixels)
    command(*lent(), f"image={path}", "target=bright")
    assert folders() == ["photo-bright-sufficient_region"]
    (name,) = folders()
    written = sorted(p.name for p in Path("outputs/explanations", name).iterdir())
    pictures = ["curve.png", "explanation.png", "image.png", "overlay.png", "target.png"]
    assert written == sorted([*pictures, "arrays.npz", "manifest.json", "metrics.json", "saliency.npy"])

    expected = misure.explain(Bright(), read_back(path), 1, "sufficient_region")
    assert f"photo.png: bright, SR: Dice explained {expected.dice_explained:.3f}" in capsys.readouterr().out
    saliency = np.load(Path("outputs/explanations", name, "saliency.npy"), allow_pickle=False)
    np.testing.assert_array_equal(saliency, expected.saliency.numpy())
    metrics, manifest = read(name, "metrics.json"), read(name, "manifest.json")
    assert metrics["dice_explained"] == expected.dice_explained
    assert metrics["prediction_size"] == expected.target.size
    assert metrics["curve"]["dice_explained"][-1] == 1.0
    assert manifest["input"]["sha256"] == file_digest(path)
    assert manifest["network"]["sha256"] == file_digest(Path("network.pt"))
    assert manifest["versions"]["misure"] == misure.__version__
    assert manifest["parameters"] == expected.parameters
    assert manifest["request"]["target"] == "bright"


def read_back(path):
    return torch.from_numpy(np.asarray(Image.open(path), np.float32) / 255)[None]


def test_the_outline_is_where_the_object_is(lent):
    pixels = bright_square(side=48)
    command(*lent(), f"image={write_png(Path('photo.png'), pixels)}")
    drawn = matplotlib.image.imread("outputs/explanations/photo-bright-sufficient_region/target.png")[..., :3]
    assert drawn.shape == (480, 480, 3)  # ten times the image
    red = (drawn[..., 0] > 0.8) & (drawn[..., 1] < 0.5)
    rows, columns = np.nonzero(red)
    predicted = Bright()(pixels[None]).argmax(1)[0] == 1
    inside = predicted.nonzero()
    low, high = inside.min(0).values * 10, (inside.max(0).values + 1) * 10
    assert [[rows.min(), columns.min()], [rows.max() + 1, columns.max() + 1]] == [low.tolist(), high.tolist()]


def test_a_scan_s_map_lies_where_its_slice_was(lent):
    voxels = np.full((12, 10, 4), -1000, np.int16)
    voxels[3:8, 2:6, 2] = 300
    path = write_nifti(Path("scan.nii.gz"), voxels, axes="PIR")
    command(*lent(), f"image={path}", "slice=2", "size=[20,24]")
    name = "scan-slice-2-bright-sufficient_region"
    assert folders() == [name]
    stored, written = nib.load(path), nib.load(Path("outputs/explanations", name, "saliency.nii.gz"))
    assert written.shape == (10, 1, 12)
    np.testing.assert_allclose(written.affine @ [0, 0, 0, 1], stored.affine @ [0, 1, 0, 1])
    np.testing.assert_allclose(written.affine[:, :3], stored.affine[:, :3])
    bright = stored.get_fdata()[:, 1:2] > 0
    values = written.get_fdata()
    assert values[bright].min() > 0.5  # the region covers the object in the scan's own grid; its corners are smoothed
    assert values[0, 0, 0] == 0
    assert read(name, "manifest.json")["shape"] == [1, 20, 24]


def test_a_network_for_volumes_takes_the_volume(lent):
    voxels = np.full((12, 10, 8), -1000, np.int16)
    voxels[3:9, 2:8, 2:6] = 300
    path = write_nifti(Path("scan.nii.gz"), voxels, axes="LAS")
    command(*lent(Bright(dimensions=3)), f"image={path}", "target=1")
    written = nib.load("outputs/explanations/scan-bright-sufficient_region/saliency.nii.gz")
    stored = nib.load(path)
    assert written.shape == stored.shape
    np.testing.assert_array_equal(written.affine, stored.affine)
    assert written.get_fdata()[stored.get_fdata() > 0].min() == 1


def two_squares():
    pixels = torch.full((1, 24, 40), 0.05)
    pixels[:, 6:14, 4:12] = 1.0
    pixels[:, 6:14, 26:34] = 1.0
    return pixels


def test_a_point_a_border_and_a_mask_choose_part_of_a_class(lent):
    model = lent()
    path = write_png(Path("photo.png"), two_squares())
    mask = torch.zeros(1, 24, 40)
    mask[:, :, :20] = 1 / 255  # the smallest value that is not zero
    write_png(Path("left.png"), mask)
    whole = int((Bright()(two_squares()[None]).argmax(1) == 1).sum())
    command(*model, f"image={path}")
    command(*model, f"image={path}", "at=[10,30]", "size=[48,80]")
    command(*model, f"image={path}", "region=left.png")
    command(*model, f"image={path}", "border=1")
    sizes = {name: read(name, "metrics.json")["prediction_size"] for name in folders()}
    method = "sufficient_region"
    assert sizes[f"photo-bright-{method}"] == whole
    assert sizes[f"photo-bright-in-left-{method}"] == whole // 2
    assert 0 < sizes[f"photo-bright-border-1-{method}"] < whole
    chosen = np.load(f"outputs/explanations/photo-bright-at-10-30-{method}/arrays.npz")["region"]
    assert chosen[20, 60]
    assert not chosen[:, :40].any()


def test_all_predicted_classes_at_once(lent):
    network = Bright()
    with torch.no_grad():
        network.mean.bias[2] = 0.45  # class 2 where it is neither dark nor bright
        network.mean.bias[0], network.mean.weight[0] = 0.6, -network.mean.weight[1]
    pixels = torch.cat([torch.full((1, 12, 8), v) for v in (0.0, 0.3, 1.0)], 2)
    command(*lent(network), f"image={write_png(Path('photo.png'), pixels)}", "target=all")
    assert folders() == ["photo-bright-sufficient_region", "photo-never-sufficient_region"]


def test_one_failing_image_does_not_stop_the_others(lent, capsys):
    for name in ("a.png", "a.tiff"):
        write_png(Path(name), bright_square())
    Path("b.png").write_text("no image")
    write_png(Path("d.png"), torch.zeros(1, 8, 8))
    with pytest.warns(UserWarning, match=r"1 left out, as they are no images: network\.pt"):
        message = failing(capsys, *lent(), "image=.", "target=bright")
    assert "2 of 4 images could not be explained" in message
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("misure: ")]
    assert [line.split(":")[1].strip() for line in lines] == ["b.png", "d.png"]
    assert folders() == ["a.png-bright-sufficient_region", "a.tiff-bright-sufficient_region"]  # of one name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["image=foto.png"], ["there is no image foto.png", "close names: photo.png"]),
        (["image=photo.png", "target=brigth"], ["target=brigth", "close names: bright"]),
        (["image=photo.png", "target=never"], ["target=never is not predicted", "predicted: bright"]),
        (["image=photo.png", "target=7"], ["class 7 does not exist", "0 to 2"]),
        (["image=photo.png", "at=[40,2]"], ["at=[40, 2] is not a point of an image of 24 x 24"]),
        (["image=photo.png", "region=wide.png"], ["region=wide.png is 4 x 6, the image 24 x 24"]),
        (["image=photo.png", "mean=[0.5,0.5]"], ["mean=[0.5, 0.5]", "2 channels"]),
        (["image=photo.png", "std=[0]"], ["std=[0] has a zero"]),
        (["image=photo.png", "class_names=nowhere.txt"], ["class_names=nowhere.txt cannot be read"]),
        (["image=photo.png", "in_channels=3"], ["does not take an image of 3 x 24 x 24"]),
        ([], ["no image is given"]),
    ],
)
def test_a_users_error_is_one_line_and_writes_nothing(lent, capsys, arguments, words):
    model = lent()
    write_png(Path("photo.png"), bright_square())
    write_png(Path("wide.png"), torch.ones(1, 4, 6))
    message = failing(capsys, *model, *arguments)
    for word in words:
        assert word in message, message
    assert folders() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model=unet_vgg16", "data_root=data"], ["model=unet_vgg16 has no weights", "train", "model_file="]),
        (["model=deeplabv3_mobilenetv2", "data_root=data"], ["is missing", "model_file=<your network>"]),
        (["model_file=nowhere.pt"], ["model_file=nowhere.pt does not exist"]),
    ],
)
def test_missing_networks_say_what_to_do(capsys, arguments, words):
    write_png(Path("photo.png"), bright_square())
    message = failing(capsys, "image=photo.png", *arguments)
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("folder", ["outputs/checkpoints", "root/triangle_unet_resnet34"])
def test_a_trained_network_is_found_by_its_name(folder, capsys):
    write_checkpoint(Path(folder, "triangle-unet_resnet34-smoke.safetensors"))
    write_png(Path("photo.png"), torch.rand(1, 32, 32))
    command("model=unet_resnet34", "image=photo.png", "target=all", "data_root=root")
    written = folders()
    assert written
    network = read(written[0], "manifest.json")["network"]
    assert network["source"] == "triangle-unet_resnet34-smoke.safetensors"
    assert network["sha256"] == file_digest(Path(folder, "triangle-unet_resnet34-smoke.safetensors"))


@pytest.mark.parametrize(
    ("files", "source"),
    [
        (["patients/s0/ct.png", "patients/s1/ct.png", "patients/s2/ct.png"], "patients/*/ct.png"),
        (["own/slice 1.png", "own/slice_1.png", "own/slice(1).png"], "own"),
        (["own/Scan.png", "own/scan.png", "own/scan.PNG"], "own"),
        (["own/a.png", "own/a.tiff", "own/b.png"], "own"),
        (["s0/a.png", "s1/a.png"], "[s0/a.png,s1/a.png,./s0/a.png]"),
    ],
)
def test_every_image_keeps_an_explanation_of_its_own(lent, files, source):
    for number, file in enumerate(files):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        write_png(Path(file), bright_square() * (1 - number / 20))
    command(*lent(), f"image={source}")
    first = folders()
    kept = [read(name, "manifest.json")["input"]["sha256"] for name in first]
    assert sorted(kept) == sorted(file_digest(Path(file)) for file in files)
    command(*lent(), f"image={source}")
    assert folders() == first  # the same request replaces its own


def test_another_request_does_not_replace_an_explanation(lent, capsys):
    for folder in ("one", "two"):
        Path(folder).mkdir()
    write_png(Path("one/photo.png"), bright_square())
    write_png(Path("two/photo.png"), bright_square() * 0.9)
    mask = torch.zeros(1, 24, 24)
    mask[:, :, :12] = 1
    write_png(Path("one/mask.png"), mask)
    write_png(Path("two/mask.png"), 1 - mask)
    model = lent()
    command(*model, "image=one/photo.png")
    command(*model, "image=two/photo.png")
    assert "photo-bright-sufficient_region holds another explanation" in capsys.readouterr().out
    command(*model, "image=one/photo.png", "mean=[0.01]")
    command(*model, "image=one/photo.png", "explainer.tau=0.8")
    for folder in ("one", "two"):
        command(*model, "image=one/photo.png", f"region={folder}/mask.png")
    Path("network.pt").write_bytes(b"other weights")
    command("model_file=network.pt", "image=one/photo.png")
    assert len(folders()) == 7
    assert all(name.startswith("photo-bright-") for name in folders())
    command("model_file=network.pt", "image=one/photo.png")
    assert len(folders()) == 7


def test_a_class_0_that_is_an_object_is_one_of_several(lent, capsys):
    write_png(Path("photo.png"), bright_square())
    message = failing(capsys, *lent(class_names=("wall", "bright", "never")), "image=photo.png")
    assert "several classes are predicted: choose target=<class> out of wall, bright" in message


def test_classes_of_alike_names_have_folders_of_their_own(lent):
    network = Bright()
    with torch.no_grad():
        network.mean.bias[2], network.mean.bias[0] = 0.45, 0.6
        network.mean.weight[0] = -network.mean.weight[1]
    pixels = torch.cat([torch.full((1, 12, 8), v) for v in (0.0, 0.3, 1.0)], 2)
    write_png(Path("photo.png"), pixels)
    for names in (("", "class a/b", "class a_b"), ("", "../..", "..\\.."), ("", "Liver", "liver"), ("", "x", "x")):
        before = len(folders())
        command(*lent(network, class_names=names), "image=photo.png", "target=all")
        assert len(folders()) == before + 2
    assert sorted(path.name for path in Path().iterdir()) == ["network.pt", "outputs", "photo.png"]


class Fussy(Bright):
    """Raises on images that are brighter than usual."""

    error: BaseException

    def forward(self, images):
        if images[0, 0, 0, 0] > 0.2:
            raise self.error
        return super().forward(images)


@pytest.mark.parametrize(
    "error",
    [
        *(KeyError("window"), AssertionError(), RecursionError("deep"), MemoryError(), OSError("odd")),
        *(UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), torch.OutOfMemoryError("CUDA out of memory")),
        *(StopIteration(), Exception("onnxruntime")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_network_raises_is_its_image_s_line(lent, capsys, error):
    network = Fussy()
    network.error = error
    for name, offset in (("a", 0.0), ("b", 0.3), ("c", 0.0)):
        write_png(Path(f"{name}.png"), (bright_square() + offset).clamp(0, 1))
    message = failing(capsys, *lent(network), "a.png", "b.png", "nowhere.png", "c.png")
    assert message == "misure: 2 of 4 images could not be explained, see above: nowhere.png; b.png"
    assert folders() == ["a-bright-sufficient_region", "c-bright-sufficient_region"]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("misure: b.png: ")]
    assert len(lines) == 1
    assert failing(capsys, *lent(network), "b.png").startswith("misure: ")  # alone it is one line as well


@pytest.mark.parametrize("reader", ["read_image", "explanation_curves"])
def test_a_reader_or_a_measure_that_fails_ends_nothing(lent, capsys, monkeypatch, reader):
    right = getattr(work, reader)
    calls = iter([True, False, True])
    monkeypatch.setattr(work, reader, lambda *a, **k: right(*a, **k) if next(calls) else 1 / 0)
    for name in "abc":
        write_png(Path(f"{name}.png"), bright_square())
    assert "1 of 3 images could not be explained, see above: b.png" in failing(
        capsys, *lent(), "a.png", "b.png", "c.png"
    )
    assert len(folders()) == 2


def test_nothing_goes_on_where_nothing_can_be_kept(lent, capsys):
    for name in "ab":
        write_png(Path(f"{name}.png"), bright_square())
    Path("taken").write_text("a file")
    message = failing(capsys, *lent(), "a.png", "b.png", "--output", "taken")
    assert "cannot write" in message
    assert "images could not be explained" not in message


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("Schädel\nLeber".encode("utf-8-sig"), ("Schädel", "Leber")),
        (b"a\r\nb\r\n\r\n", ("a", "b")),
        ("a\nb".encode("utf-16"), ("a", "b")),
        (b"1\n2\n 007 \n", ("1", "2", "007")),
        ("a\u2028b\nc".encode(), ("a\u2028b", "c")),
        ("Schädel".encode("latin-1"), "classes.txt cannot be read"),
        (b"a\n\nb\n", "line 2 is empty"),
        (b"", "line 1 is empty"),
    ],
)
def test_class_files_as_editors_write_them(content, names):
    Path("classes.txt").write_bytes(content)
    if isinstance(names, tuple):
        assert class_names_of("classes.txt") == names
        return
    with pytest.raises(MisureError, match=names) as error:
        class_names_of("classes.txt")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("names", "target", "class_id"),
    [
        (["1", "2", "3"], "2", "classes of number 1; 2"),
        (["0", "1", "2"], "1", 1),
        (["a", "x", "x"], "x", "classes of number 1; 2"),
        (["a", "null", "b"], "'null'", 1),
        (["a", "Leber (rechts), groß", "b"], "Leber (rechts), groß", 1),
    ],
)
def test_a_target_means_one_class_or_is_refused(lent, capsys, names, target, class_id):
    model = lent(class_names=names)
    write_png(Path("photo.png"), bright_square())
    if isinstance(class_id, str):
        assert class_id in failing(capsys, *model, "photo.png", "--target", target)
        return
    command(*model, "photo.png", "--target", target)
    assert read(folders()[0], "manifest.json")["class_id"] == class_id


def test_layers_are_listed_with_their_shapes(lent, capsys):
    write_png(Path("photo.png"), bright_square())
    cli.main(["layers", *lent(), "image=photo.png"])
    out = capsys.readouterr().out
    assert "1 x 3 x 24 x 24" in out
    assert "layer of the CAM methods: mean" in out
    cli.main(["layers", *lent(), "size=[24,20]"])
    assert "1 x 3 x 24 x 20" in capsys.readouterr().out


def test_a_program_of_one_size_explains_images_of_any(capsys):
    program = torch.export.export(Bright().eval(), (torch.zeros(1, 1, 24, 28),))
    torch.export.save(program, "network.pt2")
    write_png(Path("photo.png"), bright_square(side=48))
    command("model_file=network.pt2", "image=photo.png", "target=1", "size=null")
    assert read(folders()[0], "manifest.json")["shape"] == [1, 24, 28]
    for options in ([], ["image=photo.png"]):
        cli.main(["layers", "model_file=network.pt2", *options])
        assert "1 x 3 x 24 x 28" in capsys.readouterr().out


def test_a_full_disk_leaves_nothing(lent, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("misure.explaining.writing.write_curve", full)
    write_png(Path("photo.png"), bright_square())
    assert "No space left on device; free space" in failing(capsys, *lent(), "image=photo.png")
    assert folders() == []


def test_a_real_photograph():
    data = Path(os.environ.get("MISURE_DATA", "nowhere"))
    photographs = sorted((data / "coco" / "val2017").glob("*.jpg"))
    if not photographs or not (data / "deeplabv3_mobilenetv2_voc").is_dir():
        pytest.skip("MISURE_DATA has no coco/val2017 or no deeplabv3_mobilenetv2_voc")
    arguments = [f"image={photographs[0]}", f"data_root={data}", "target=all"]
    command("model=deeplabv3_mobilenetv2", "explainer=seg_grad_cam", *arguments)
    assert folders()
    for name in folders():
        assert read(name, "metrics.json")["prediction_size"] > 0
        assert not name.startswith(f"{photographs[0].stem}-background")


def test_what_a_network_returns_is_refused_by_name_or_told(lent, capsys):
    bright = Bright()

    def probability(images):
        return (9 * bright(images)[:, 1:2] - 4.5).sigmoid()

    pixels = bright_square()
    image = f"image={write_png(Path('photo.png'), pixels)}"
    message = failing(capsys, *lent(probability), image)
    assert "which are probabilities (after a sigmoid) or logits" in message
    assert "network_output=" in message
    command(*lent(probability), image, "network_output=probabilities")
    assert read("photo-bright-sufficient_region", "metrics.json")["prediction_size"] == int(
        (bright(pixels[None]).argmax(1) == 1).sum()
    )
    assert read("photo-bright-sufficient_region", "manifest.json")["network"]["output"] == "probabilities"
    assert "boxes or queries" in failing(capsys, *lent(lambda x: x.new_zeros(len(x), 37, 8400)), image)
    assert "NaN or infinity for the image itself" in failing(capsys, *lent(lambda x: x / 0 * 0), image)
