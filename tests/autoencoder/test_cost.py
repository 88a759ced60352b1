import pytest
import torch

from dcvideogen.autoencoder.cost import conv_flops
from dcvideogen.autoencoder.presets import make_autoencoder


@pytest.mark.parametrize(
    ("name", "height", "width", "encode", "decode"),
    # TFLOP for 80 frames, as computed from the authors' public code.
    [
        ("f32t4c32", 480, 832, 1006, 1088),
        ("f32t4c32", 704, 1280, 2270, 2455),
        ("f32t4c32", 2176, 3840, 21049, 22761),
        ("f64t4c128", 512, 832, None, 1162),
    ],
)
def test_the_published_models_cost_what_is_published(name, height, width, encode, decode):
    with torch.device("meta"):
        model = make_autoencoder(name)
    counted = [flops / 1e12 for flops in conv_flops(model, 80, height, width)]
    assert encode is None or counted[0] == pytest.approx(encode, rel=0.005)
    assert counted[1] == pytest.approx(decode, rel=0.005)


def test_counting_leaves_the_model_where_it_is(tiny):
    conv_flops(tiny, 5, 40, 40)
    assert tiny.device.type == "cpu"
    assert not any(module._forward_hooks for module in tiny.modules())
