"""Whole explanations, predictions and trainings on a GPU, pretended or real, give what they give on the CPU."""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from explainers.test_all_explainers import CAPTUM, PARAMETERS, SIZES, make_case
from oracles.toys import Convolutional
from pipeline import shipped_root
from pretended_cuda import CUDA, pretended_cuda
from safetensors.torch import load_file
from sweep.test_predictions import Images
from torch import Tensor, nn
from training.test_module import INFO, RECIPE, make_data, toy_network

import misure
from misure.app.pictures import prediction_picture
from misure.evaluation.curves import explanation_curves
from misure.explainers import make_explainer
from misure.metrics import Blanking
from misure.models.checkpoint import load_checkpoint, save_checkpoint
from misure.models.compute import Compute, tf32
from misure.models.deeplab import build_deeplab_mobilenetv2, build_deeplab_resnet50
from misure.models.transunet import build_transunet
from misure.models.unet import build_unet
from misure.models.wrapper import SegmentationModel, frozen
from misure.sweep.interventions import Intervention, Interventions, other_class
from misure.sweep.predictions import predict_all
from misure.target import predicted_classes
from misure.training.module import train
from misure.training.task import SegmentationTask

FEW = {
    name: {**given, **({"n_iterations": 3} if "n_iterations" in given else {})} for name, given in PARAMETERS.items()
}


@pytest.fixture(params=["pretended", pytest.param("real", marks=pytest.mark.cuda)])
def gpu(request):
    with pretended_cuda() if request.param == "pretended" else nullcontext(), tf32(allowed=False):
        yield Gpu(real=request.param == "real")


@dataclass(frozen=True)
class Gpu:
    """A GPU to run on."""

    real: bool

    def moved(self, network: nn.Module) -> nn.Module:
        return copy.deepcopy(network).to(CUDA)

    def assert_close(self, made: Tensor, reference: Tensor, rounding: float = 1e-3) -> None:
        """Compare to the last bit, or on a real GPU to a share of the largest value.

        On these networks float32 moves maps by up to 3e-6 of it; where it moves a pixel's predicted class, one of some
        dozen Dice scores changes by about a hundredth.
        """
        assert made.device == reference.device == torch.device("cpu")
        scale = float(reference.abs().max()) or 1.0
        torch.testing.assert_close(made, reference, rtol=0, atol=rounding * scale if self.real else 0)


@pytest.mark.parametrize("method", sorted(misure.EXPLAINERS))
def test_every_explainer_gives_the_same_map_as_on_the_cpu(method, gpu):
    if method in CAPTUM:
        pytest.importorskip("captum", reason="captum is not installed")
    case = make_case("tensor", 1, SIZES[0])
    network, images = case.module.float(), case.images[:1].float()
    model = replaced(case.model, gpu.moved(network))
    references = misure.explain(case.model, images, case.target, method, precision="32", **FEW[method])
    steps = []
    explanations = misure.explain(
        model, images.to(CUDA), case.target, method, precision="32", watch=steps.append, **FEW[method]
    )
    assert all(step.masks is None or step.masks.is_cuda for step in steps)
    for made, reference in zip(explanations, references, strict=True):
        on_cpu = [made.image, made.saliency, *(t for t in vars(made.target).values() if isinstance(t, Tensor))]
        assert {tensor.device.type for tensor in on_cpu} == {"cpu"}
        assert made.n_dilations == reference.n_dilations
        assert made.saliency[made.target.region].isfinite().all()
        if gpu.real and method == "extremal_perturbation":  # where a sorted list is cut, rounding moves whole cells
            assert abs(made.dice_explained - reference.dice_explained) < 0.1
        else:
            gpu.assert_close(made.saliency, reference.saliency)
            gpu.assert_close(torch.tensor(made.curve or (0,)), torch.tensor(reference.curve or (0,)))


def replaced(model: SegmentationModel, network: nn.Module) -> SegmentationModel:
    other = copy.copy(model)
    other.network = network
    other.activation_bytes = {}
    return other


@pytest.mark.parametrize("bfloat16", ["fast"], indirect=True)
@pytest.mark.parametrize(("method", "precision"), [("msr", "bf16"), ("rise", "auto")])
def test_bfloat16_on_a_gpu(method, precision, bfloat16, gpu):
    case = make_case("tensor", 1, SIZES[0])
    model = replaced(case.model, gpu.moved(case.module.float()))
    images = case.images[:1].float().to(CUDA)
    (made,) = misure.explain(model, images, case.target, method, precision=precision, **FEW[method])
    assert made.precision == "bf16"
    assert made.saliency.dtype == torch.float32
    assert made.saliency.isfinite().all()


def test_an_explanation_made_on_a_gpu_is_drawn_saved_and_measured(gpu, tmp_path):
    case = make_case("tensor", 1, SIZES[0])
    model, image = replaced(case.model, gpu.moved(case.module.float())), case.images[0].float()
    drawn = torch.ones(SIZES[0], dtype=torch.bool)  # on the CPU, as the image
    for made in misure.explain(model, image, "all", "msr", region=drawn, border=2, **FEW["msr"]):
        labels = torch.zeros(SIZES[0], dtype=torch.int64)
        assert prediction_picture(image.expand(3, -1, -1).sigmoid(), labels, made.target.region).ndim == 3
        folder = made.save(tmp_path / f"class {made.target.class_id}")
        assert np.array_equal(np.load(folder / "saliency.npy"), made.saliency.numpy())
        curve = explanation_curves(model, made, Blanking("blur", 2), Compute("32"), n_levels=3, n_steps=2)
        assert all(np.isfinite(curve[name]).all() for name in ("curve_dice", "insertion_dice", "deletion_dice"))


def test_layers_and_the_bottleneck_are_found_on_a_gpu(gpu):
    network = Convolutional(2, seed=1).eval()
    image = torch.zeros(2, 16, 16)
    on_cpu, on_gpu = SegmentationModel(network), SegmentationModel(gpu.moved(network))
    assert on_gpu.layers(image) == on_cpu.layers(image)
    assert on_gpu.suggest_bottleneck(image) == on_cpu.suggest_bottleneck(image)


NETWORKS = {
    "unet": lambda: build_unet("mobilenet_v2", 1, 3, pretrained=None),
    "transunet": lambda: build_transunet(1, 3, image_size=32, depth=1, width=64, pretrained=None),
    "deeplab_mobilenet": lambda: build_deeplab_mobilenetv2(3, input_size=33),
    "deeplab_resnet": lambda: build_deeplab_resnet50(3, blocks=(1, 1, 1, 1)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_run_on_a_gpu(name, gpu):
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    images = torch.randn(
        1, 3 if name.startswith("deeplab") else 1, 48, 64
    )  # not the size that position embeddings are for
    with torch.no_grad():
        made = SegmentationModel(gpu.moved(network))(images.to(CUDA))
        assert made.is_cuda
        gpu.assert_close(made.cpu(), SegmentationModel(network)(images))


def test_predictions_are_counted_on_a_gpu(gpu):
    class Labels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Conv2d(1, 4, 1)  # highest where a pixel's value is the class: 2 c x - c ** 2
            with torch.no_grad():
                self.head.weight.copy_(2 * torch.arange(4.0).view(4, 1, 1, 1))
                self.head.bias.copy_(-torch.arange(4.0).square())

        def forward(self, images: Tensor) -> Tensor:
            return self.head(images)

    images = Images()
    model = SegmentationModel(gpu.moved(Labels()))
    seen = predict_all(model, images, Compute("32", 3))
    for c in range(4):
        assert np.array_equal(seen.predicted[:, c], (images.predicted == c).sum((1, 2)))
        assert np.array_equal(seen.overlap[:, c], ((images.predicted == c) & (images.masks == c)).sum((1, 2)))


def test_interventions_on_a_gpu(gpu):
    case = make_case("tensor", 1, SIZES[0])
    network, images = case.module.float().eval(), case.images[:1].float()
    made = {}
    for place, module in (("cpu", network), ("cuda", gpu.moved(network))):
        model = replaced(case.model, module)
        explainer = make_explainer("msr", **FEW["msr"])
        x = images.to(place)
        changed, tolerant = Interventions().apply(Intervention(randomised=0.4), model, explainer, x, 1)
        with frozen(model, Compute("32"), x.device) as lent:
            target = misure.Target.from_logits(lent(x)[0], other_class(lent, x, case.target))
        (explanation,) = tolerant.explain(changed, x, [target], Compute("32"))
        made[place] = explanation
        assert set(predicted_classes(model(x)[0])) > {target.class_id}
    gpu.assert_close(made["cuda"].saliency, made["cpu"].saliency)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return shipped_root(tmp_path_factory.mktemp("devices") / "data")


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_training_steps_on_a_gpu(optimiser, gpu, root, tmp_path, monkeypatch):
    """Batches are moved by Lightning's own hook; on a real GPU steps of 0.02 add up rounding to far below 1e-3."""
    logged: dict[str, Tensor] = {}
    monkeypatch.setattr(SegmentationTask, "log", lambda _self, name, value, **_: logged.update({name: value}))
    data, start, ends = make_data(root), toy_network(), []
    for place in (torch.device("cpu"), CUDA):
        network = copy.deepcopy(start).to(place).to(memory_format=torch.channels_last)
        task = SegmentationTask(network, replace(RECIPE, optimiser=optimiser))
        stepping = task.configure_optimizers()
        for batch, _ in zip(data.train_dataloader(), range(3), strict=False):
            stepping.zero_grad()
            loss = task.training_step(task.transfer_batch_to_device(batch, place, 0), 0)
            loss.backward()
            task.configure_gradient_clipping(stepping)
            stepping.step()
        with torch.no_grad():
            task.eval()
            task.validation_step(task.transfer_batch_to_device(next(iter(data.val_dataloader())), place, 0), 0)
            task.on_validation_epoch_end()
        assert {t.device.type for t in (loss, *logged.values(), *network.parameters())} == {place.type}
        save_checkpoint(tmp_path / f"{place.type}.safetensors", network, INFO)
        ends.append((loss.detach().cpu(), logged["val_dice"].cpu()))
    for made, reference, rounding in zip(
        *reversed(ends), (1e-3, 0.05), strict=True
    ):  # a loss, and a Dice of few pixels
        gpu.assert_close(made, reference, rounding)
    weights = [load_file(tmp_path / f"{name}.safetensors") for name in ("cuda", "cpu")]
    for name, tensor in weights[1].items():
        if not (gpu.real and name == "0.bias"):  # batch normalisation takes it away: its gradient is mere rounding
            gpu.assert_close(weights[0][name], tensor)
    loaded = load_checkpoint(tmp_path / "cuda.safetensors", copy.deepcopy(start)).to(CUDA)
    assert loaded.device.type == "cuda"


@pytest.mark.parametrize("precision", ["32", "bf16"])
@pytest.mark.cuda
def test_a_training_on_a_real_gpu(precision, root, tmp_path):
    path, network = tmp_path / "toy.safetensors", toy_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    info = train(network, make_data(root), replace(RECIPE, precision=precision), path=path, info=INFO, logger=False)
    assert next(network.parameters()).dtype == torch.float32
    assert 0 <= info.metrics["val_dice"] <= 1
    assert info.training["steps"] == RECIPE.max_epochs * (RECIPE.samples_per_epoch // RECIPE.batch_size)
    kept = load_file(path)
    assert all(math.isfinite(float(tensor.float().sum())) for tensor in kept.values())
    assert any(not torch.equal(tensor, before[name]) for name, tensor in kept.items())
