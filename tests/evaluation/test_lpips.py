import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from dcvideogen.errors import UserError
from dcvideogen.evaluation.lpips import CHANNELS, Lpips, load_lpips

# AlexNet as its paper draws it: (kernel, stride, padding) per conv, and the convs that a pooling follows.
ALEX_CONVS = {0: (11, 4, 2), 3: (5, 1, 2), 6: (3, 1, 1), 8: (3, 1, 1), 10: (3, 1, 1)}
VGG_POOLS = (4, 9, 16, 23)


def write_weights(folder, network, suffix=".pth", seed=0):
    """Random files in the published layouts, with a classifier's other tensors beside the features."""
    generator = torch.Generator().manual_seed(seed)
    backbone = {
        f"features.{name}": torch.randn(tensor.shape, generator=generator) * (2 / tensor[0].numel()) ** 0.5
        if tensor.ndim == 4
        else torch.randn(tensor.shape, generator=generator) * 0.1
        for name, tensor in Lpips(network).features.state_dict().items()
    }
    backbone["classifier.1.weight"] = torch.zeros(2, 2)
    heads = {
        f"lin{k}.model.1.weight": torch.rand(1, channels, 1, 1, generator=generator)
        for k, channels in enumerate(CHANNELS[network])
    }
    paths = folder / f"backbone{suffix}", folder / f"heads{suffix}"
    for path, state in zip(paths, (backbone, heads), strict=True):
        save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    return *paths, backbone, heads


def plain_lpips(network, backbone, heads, a, b):
    """The formula written out with the file's tensors, one picture at a time."""
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    features = []
    for picture in (a, b):
        x = torch.from_numpy((picture.double().numpy() - shift[:, None, None]) / scale[:, None, None])[None]
        taps = []
        convs = sorted(int(name.split(".")[1]) for name in backbone if name.endswith("weight") and "features" in name)
        for index in convs:
            weight, bias = (backbone[f"features.{index}.{part}"].double() for part in ("weight", "bias"))
            if network == "alex":
                _, stride, padding = ALEX_CONVS[index]
                if index in (3, 6):
                    x = F.max_pool2d(x, 3, 2)
            else:
                stride, padding = 1, 1
                if index - 1 in VGG_POOLS:
                    x = F.max_pool2d(x, 2)
            x = F.conv2d(x, weight, bias, stride, padding).clamp(min=0)
            taps.append(x[0].numpy())
        features.append(taps)
    if network == "vgg":  # the last conv at each resolution
        features = [[taps[i] for i in (1, 3, 6, 9, 12)] for taps in features]
    total = 0.0
    for k, pair in enumerate(zip(*features, strict=True)):
        one, other = (f / (np.sqrt((f**2).sum(0)) + 1e-10) for f in pair)
        weight = heads[f"lin{k}.model.1.weight"].double().numpy().ravel()
        total += ((one - other) ** 2 * weight[:, None, None]).sum(0).mean()
    return total


def pictures(height=40, width=64, number=2):
    generator = torch.Generator().manual_seed(1)
    a = torch.rand(number, 3, height, width, generator=generator) * 2 - 1
    return a, (a + 0.3 * torch.randn(a.shape, generator=generator)).clamp(-1, 1)


@pytest.mark.parametrize(("network", "suffix"), [("alex", ".pth"), ("vgg", ".safetensors")])
def test_lpips_agrees_with_the_formula_written_out(tmp_path, network, suffix):
    *paths, backbone, heads = write_weights(tmp_path, network, suffix)
    a, b = pictures()
    distances = load_lpips(network, *paths)(a, b)
    assert distances.shape == (2,)
    expected = [plain_lpips(network, backbone, heads, *pair) for pair in zip(a, b, strict=True)]
    assert distances.tolist() == pytest.approx(expected, rel=1e-4)


def test_a_picture_has_no_distance_to_itself_and_gradients_reach_the_pictures_alone(tmp_path):
    model = load_lpips("alex", *write_weights(tmp_path, "alex")[:2])
    a, b = pictures()
    assert model(a, a).abs().max() == 0
    b.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):  # fp32 all the same
        distance = model(a, b)
    assert distance.dtype == torch.float32
    assert torch.equal(distance, model(a, b))
    distance.sum().backward()
    assert b.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in model.parameters())


def test_files_that_do_not_fit_are_told(tmp_path):
    backbone, heads, *_ = write_weights(tmp_path, "alex")
    with pytest.raises(UserError, match=r"there is no file .*nowhere.pth.*nothing is downloaded"):
        load_lpips("alex", tmp_path / "nowhere.pth", heads)
    with pytest.raises(UserError, match=r"features\.0\.weight.*\(64, 3, 3, 3\) is needed.*vgg16"):
        load_lpips("vgg", backbone, heads)
    with pytest.raises(UserError, match=r"has no tensor lin0\.model\.1\.weight"):
        load_lpips("alex", backbone, backbone)
    with pytest.raises(UserError, match=r"'squeeze'; known: vgg, alex"):
        load_lpips("squeeze", backbone, heads)
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"broken\.pth cannot be read"):
        load_lpips("alex", broken, heads)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        load_lpips("alex", tmp_path / "list.pth", heads)


def test_pictures_too_small_or_of_two_shapes_are_told(tmp_path):
    model = load_lpips("alex", *write_weights(tmp_path, "alex")[:2])
    a, b = pictures(30, 64)
    with pytest.raises(UserError, match=r"30x64 pixels; LPIPS \(alex\) needs at least 31"):
        model(a, b)
    smallest, _ = pictures(31, 31)
    assert model(smallest, smallest).shape == (2,)
    with pytest.raises(ValueError, match=r"twice \(N, 3, H, W\) is allowed"):
        model(a, smallest)
