import pytest
import torch
from torch.nn import functional as F

from dcvideogen.autoencoder.conv3d import FEW, SmallConv3d, conv3d


def compare(x, weight, bias, padding):
    tensors = [tensor for tensor in (x, weight, bias) if tensor is not None]
    results = []
    for function in (lambda: conv3d(x, weight, bias, padding), lambda: F.conv3d(x, weight, bias, padding=padding)):
        y = function()
        weights = torch.linspace(-1, 1, y.numel()).view(y.shape)
        results.append((y, *torch.autograd.grad(y, tensors, weights)))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        assert found.shape == expected.shape


@pytest.mark.parametrize("padding", [(1, 1, 1), (0, 1, 1), (1, 0, 1)])
@pytest.mark.parametrize("size", [(12, 6, 6), (7, 9, 5), (3, 16, 16), (3, 3, 4)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_small_clips_get_the_gradients_of_the_plain_conv(padding, size, channels_last):
    torch.manual_seed(0)
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    x = torch.randn(1, 4, *size).to(memory_format=layout).requires_grad_()
    weight, bias = torch.randn(6, 4, 3, 3, 3, requires_grad=True), torch.randn(6, requires_grad=True)
    assert isinstance(conv3d(x, weight, bias, padding).grad_fn, SmallConv3d._backward_cls)
    compare(x, weight, bias, padding)
    compare(x, weight, None, padding)


def test_sizes_on_both_sides_of_the_bound_were_compared():
    assert 3 * 3 * 4 < FEW < 3 * 16 * 16


def test_only_the_gradients_that_are_wanted_are_computed():
    x, weight = torch.randn(1, 4, 4, 9, 9), torch.randn(6, 4, 3, 3, 3, requires_grad=True)
    weight_alone = torch.autograd.grad(conv3d(x, weight, None, (1, 1, 1)).square().sum(), weight)[0]
    torch.testing.assert_close(
        weight_alone,
        torch.autograd.grad(F.conv3d(x, weight, padding=1).square().sum(), weight)[0],
        atol=1e-3,
        rtol=1e-4,
    )
    x.requires_grad_()
    (x_alone,) = torch.autograd.grad(conv3d(x, weight.detach(), None, (1, 1, 1)).sum(), x)
    torch.testing.assert_close(x_alone, torch.autograd.grad(F.conv3d(x, weight, padding=1).sum(), x)[0])


@pytest.mark.parametrize("x", [torch.zeros(2, 4, 4, 9, 9), torch.zeros(1, 4, 4, 9, 9, dtype=torch.bfloat16)])
def test_all_other_clips_take_pytorchs_own_way(x):
    weight = torch.randn(6, 4, 3, 3, 3, dtype=x.dtype, requires_grad=True)
    assert not isinstance(conv3d(x, weight, None, (1, 1, 1)).grad_fn, SmallConv3d._backward_cls)


def test_a_backward_pass_under_autocast_stays_in_fp32():
    x, weight = torch.randn(1, 4, 6, 9, 9, requires_grad=True), torch.randn(6, 4, 3, 3, 3, requires_grad=True)
    y = conv3d(x, weight, None, (1, 1, 1)).square().sum()
    expected = torch.autograd.grad(y, (x, weight), retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(y, (x, weight))
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("num_frames", [1, 2, 3, 4])
def test_bf16_gradients_of_few_frames_are_right(autocast, num_frames):
    torch.manual_seed(0)
    x, weight = torch.randn(1, 32, num_frames, 4, 4), torch.randn(32, 32, 3, 3, 3, requires_grad=True) / 30
    out = torch.randn(1, 32, num_frames, 4, 4)
    (expected,) = torch.autograd.grad(conv3d(x, weight, None, (1, 1, 1)), weight, out)
    dtype = torch.float32 if autocast else torch.bfloat16
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = conv3d(x.to(dtype), weight.to(dtype), None, (1, 1, 1))
        (found,) = torch.autograd.grad(y, weight, out.to(y.dtype))
        assert (found - expected).abs().max() < 0.02 * expected.abs().max()
