import numpy as np
import pytest
import torch
from pictures import waves
from safetensors.torch import save_file
from torch.nn import functional as F

from dcvideogen.errors import UserError
from dcvideogen.evaluation.i3d import I3D, MIN_FRAMES, ClipFeatures, load_i3d


def write_weights(path, seed=0):
    """A random file in the usual layout."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in I3D().state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(3)
        elif name.endswith("running_var"):
            state[name] = torch.rand(tensor.shape, generator=generator) + 0.5
        elif tensor.ndim > 1:
            state[name] = torch.randn(tensor.shape, generator=generator) * (2 / tensor[0].numel()) ** 0.5
        elif name.endswith("bn.weight"):
            state[name] = torch.rand(tensor.shape, generator=generator) + 0.5
        else:
            state[name] = torch.randn(tensor.shape, generator=generator) * 0.1
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return state


def same(x, kernel, stride, value=0.0):
    """TensorFlow's padding, axis by axis."""
    for axis, (k, s) in enumerate(zip(kernel, stride, strict=True), start=2):
        size = x.shape[axis]
        missing = max(k - s if size % s == 0 else k - size % s, 0)
        before = torch.full_like(x.narrow(axis, 0, 1), value)
        x = torch.cat([*[before] * (missing // 2), x, *[before] * (missing - missing // 2)], dim=axis)
    return x


def plain_i3d(state, video):
    """The network of arXiv 1705.07750, figure 3, from the file's tensors."""

    def unit(x, name, stride=1):
        weight = state[f"{name}.conv3d.weight"]
        x = F.conv3d(same(x, weight.shape[2:], (stride,) * 3), weight, stride=stride)
        mean, var, gain, bias = (
            state[f"{name}.bn.{part}"].view(1, -1, 1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / torch.sqrt(var + 1e-3) * gain + bias).clamp(min=0)

    def pool(x, kernel, stride):
        return F.max_pool3d(same(x, kernel, stride, float("-inf")), kernel, stride)

    def mixed(x, name):
        branches = [unit(x, f"{name}.b0"), unit(unit(x, f"{name}.b1a"), f"{name}.b1b")]
        branches += [unit(unit(x, f"{name}.b2a"), f"{name}.b2b"), unit(pool(x, (3, 3, 3), (1, 1, 1)), f"{name}.b3b")]
        return torch.cat(branches, dim=1)

    x = pool(unit(video, "Conv3d_1a_7x7", 2), (1, 3, 3), (1, 2, 2))
    x = pool(unit(unit(x, "Conv3d_2b_1x1"), "Conv3d_2c_3x3"), (1, 3, 3), (1, 2, 2))
    x = pool(mixed(mixed(x, "Mixed_3b"), "Mixed_3c"), (3, 3, 3), (2, 2, 2))
    for letter in "bcdef":
        x = mixed(x, f"Mixed_4{letter}")
    x = mixed(mixed(pool(x, (2, 2, 2), (2, 2, 2)), "Mixed_5b"), "Mixed_5c")
    pairs = (x[:, :, 1:] + x[:, :, :-1]).mean(dim=(3, 4)) / 2  # 7 x 7 positions are left
    weight, bias = state["logits.conv3d.weight"][:, :, 0, 0, 0], state["logits.conv3d.bias"]
    return (torch.einsum("bct,dc->bdt", pairs, weight) + bias[:, None]).mean(dim=2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("i3d") / "i3d.safetensors"
    return path, write_weights(path)


def test_it_has_the_size_of_the_published_one():
    parameters = sum(parameter.numel() for parameter in I3D().parameters())
    assert parameters == 12_697_264  # 12.3 million and 1024 * 400 + 400 of the logits


def test_features_of_a_clip_are_the_logits_of_the_network_of_the_paper_written_out(weights):
    path, state = weights
    features = ClipFeatures(load_i3d(path), torch.device("cpu"))
    frames = waves(MIN_FRAMES, 40, 56)
    for frame in frames:
        features.update(frame, 255 - frame)
    report = features.report()
    stack = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float()
    resized = F.interpolate(stack, (224, 224), mode="bilinear").round().transpose(0, 1)[None]
    with torch.inference_mode():
        expected = plain_i3d(state, resized / 127.5 - 1)[0]
    assert (torch.tensor(report["input"]) - expected).abs().max() < 1e-4 * expected.abs().max()
    assert (torch.tensor(report["reconstruction"]) - expected).abs().max() > 0.01 * expected.abs().max()
    assert report["reason"] is None


def test_a_clip_too_short_has_no_features_and_a_reason(weights):
    features = ClipFeatures(load_i3d(weights[0]), torch.device("cpu"))
    features.update(*[waves(1, 32, 32)[0]] * 2)
    assert features.report() == {"input": None, "reconstruction": None, "reason": "fewer than 9 frames"}


def test_files_that_do_not_fit_or_hold_code_are_told(tmp_path, weights):
    with pytest.raises(UserError, match="I3D: there is no file"):
        load_i3d(tmp_path / "nowhere.pt")
    torch.save({"Conv3d_1a_7x7.conv3d.weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"\(2,\) for tensor Conv3d_1a_7x7.*Kinetics-400"):
        load_i3d(tmp_path / "other.pt")
    torch.jit.script(torch.nn.ReLU()).save(tmp_path / "script.pt")
    with pytest.raises(UserError, match=r"I3D: .*script\.pt cannot be read"):
        load_i3d(tmp_path / "script.pt")
