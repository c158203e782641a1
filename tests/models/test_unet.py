"""U-Nets: pre-trained or random, by name."""

from __future__ import annotations

import pytest
import torch

from misure.errors import MisureError
from misure.models.unet import build_unet, missing_weights


def test_without_the_hub_training_starts_from_random_weights(monkeypatch):
    monkeypatch.setattr("misure.models.pretrained.is_reachable", lambda _url: False)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_args, **_kwargs: None)
    with pytest.warns(UserWarning, match="mobilenet_v2: .* not imagenet") as caught:
        network = build_unet("mobilenet_v2", 1, 2)
    assert [warning.filename for warning in caught] == [__file__]
    assert network.initial_weights == "random"
    assert missing_weights("mobilenet_v2") == "smp-hub/mobilenet_v2.imagenet"


def test_random_weights_have_he_s_scale_by_fan_in():
    torch.manual_seed(0)
    network = build_unet("mobilenet_v2", 1, 2, pretrained=None)
    convolution = network.decoder.blocks[0].conv1[0]
    fan_in = convolution.weight[0].numel()
    # the standard deviation of some 10 ** 6 normal numbers is known to a tenth of a per cent
    assert float(convolution.weight.detach().std()) == pytest.approx((2 / fan_in) ** 0.5, rel=0.01)


@pytest.mark.parametrize(
    ("encoder", "weights", "message"),
    [("mobilenet_v2", "nothing", "no weights 'nothing'"), ("mobilenet_v3", None, "close names: .*mobilenet_v2")],
)
def test_names_that_do_not_exist_are_refused(encoder, weights, message):
    with pytest.raises(MisureError, match=message):
        build_unet(encoder, 1, 2, pretrained=weights)
