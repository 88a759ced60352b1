"""Small image autoencoders of diffusers, with random weights, against what is made of them here."""

import json

import pytest
import torch
from diffusers import AutoencoderDC
from safetensors.torch import load_file, save_file

from dcvideogen.errors import UserError
from dcvideogen.training.inflation import inflate

SIZES = {
    "latent_channels": 4,
    "attention_head_dim": 8,
    "encoder_block_out_channels": (8, 16, 16, 32),
    "decoder_block_out_channels": (8, 16, 16, 32),
    "encoder_layers_per_block": (0, 2, 1, 1),
    "decoder_layers_per_block": (0, 1, 2, 1),
    "encoder_qkv_multiscales": ((), (), (), (5,)),
    "decoder_qkv_multiscales": ((), (), (), (5,)),
    "decoder_conv_act_fn": "silu",
    "scaling_factor": 0.5,
}
pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture
def make_image_autoencoder(tmp_path):
    """Makes and saves an AutoencoderDC whose every tensor matters; gives the model and the folder."""

    def make(**changes):
        model = AutoencoderDC(**{**SIZES, **changes}).eval()
        generator = torch.Generator().manual_seed(0)
        for name, parameter in model.named_parameters():
            scale = 0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
            parameter.normal_(0.5 if "norm" in name and parameter.ndim == 1 else 0.0, scale, generator=generator)
        model.save_pretrained(tmp_path / "image")
        return model, tmp_path / "image"

    return make


def picture(size=32):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def still(image, num_frames):
    return image.unsqueeze(2).expand(-1, -1, num_frames, -1, -1)


def check_still_clip(model, ours, **tolerance):
    """A still clip has the picture's latents, and comes back as the picture does."""
    tolerance = tolerance or {"atol": 1e-4, "rtol": 1e-4}
    image = picture()
    latents = model.encode(image, return_dict=False)[0]
    found = ours.encode(still(image, 8))
    torch.testing.assert_close(found, still(latents * model.config.scaling_factor, 2), **tolerance)
    expected = model.decode(latents, return_dict=False)[0]
    found = ours.decode(still(latents * model.config.scaling_factor, 2))
    torch.testing.assert_close(found, still(expected, 8), **tolerance)


@pytest.mark.parametrize("mode", ["chunk_causal", "causal", "non_causal"])
def test_a_still_clip_is_what_the_image_autoencoder_makes_of_its_picture(make_image_autoencoder, mode):
    model, folder = make_image_autoencoder()
    ours, report = inflate(folder, {"temporal_mode": mode, "chunk_frames": 4})
    check_still_clip(model, ours)
    assert set(report.copied) | set(report.changed) == set(ours.state_dict())
    assert not set(report.copied) & set(report.changed)
    assert report.left_out == {}
    assert report.notes == ()
    # Fresh: a block more in two stages, the stage after the temporal step, and the temporal step itself.
    assert ours.config.layers_per_block == (2, 2, 1, 1)
    assert len(report.changed) == 5 * 2 + 5 * 2 + 2 * 2


@pytest.mark.parametrize(
    "changes",
    [
        {"upsample_block_type": "interpolate"},
        {"encoder_out_shortcut": False, "decoder_in_shortcut": False},
        {"encoder_layers_per_block": (1, 1, 1, 1), "decoder_layers_per_block": (1, 1, 1, 1)},
        {
            "encoder_layers_per_block": (1, 1, 1, 1),
            "decoder_layers_per_block": (1, 1, 1, 1),
            "upsample_block_type": "interpolate",
        },
    ],
    ids=["interpolating steps", "no shortcuts at the latents", "blocks at full size", "full size and interpolating"],
)
def test_other_forms_of_the_image_autoencoder_agree_too(make_image_autoencoder, changes):
    model, folder = make_image_autoencoder(**changes)
    ours, report = inflate(folder)
    assert report.left_out == {}
    check_still_clip(model, ours)


def test_every_stage_agrees_with_the_image_autoencoders(make_image_autoencoder):
    model, folder = make_image_autoencoder()
    ours, _ = inflate(folder)
    image, seen, expected = picture(), [], []
    for layer in ours.encoder.layers:
        layer.register_forward_hook(lambda _, __, out: seen.append(out[:, :, 0].clone()))
    for layer in (model.encoder.conv_in, *[block for stage in model.encoder.down_blocks for block in stage]):
        layer.register_forward_hook(lambda _, __, out: expected.append(out.clone()))
    model.encode(image)
    ours.encode(still(image, 4))
    assert len(expected) == 7  # stem, two blocks, step, block, step, block
    for index, features in enumerate(expected):
        # The second stage has a block more here, the identity.
        torch.testing.assert_close(seen[index + (index > 4)], features, atol=1e-5, rtol=1e-5)


def test_a_moving_clip_goes_frame_by_frame_up_to_the_temporal_step(make_image_autoencoder):
    model, folder = make_image_autoencoder(latent_channels=4)
    ours, _ = inflate(folder, {"chunk_frames": 4})
    frames = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
    latents = model.encode(frames, return_dict=False)[0] * 0.5
    expected = latents.unflatten(0, (2, 4)).mean(1).movedim(0, 1)[None]
    torch.testing.assert_close(ours.encode(frames.movedim(0, 1)[None]), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("width", [32, 64, 128])
def test_a_wider_stage_after_the_temporal_step_passes_a_still_clip(make_image_autoencoder, width):
    model, folder = make_image_autoencoder()
    sizes = {"block_out_channels": (16, 16, 32, width), "layers_per_block": (1, 2, 1, 0)}
    _, report = inflate(folder, sizes)
    assert "encoder.down_blocks.1.1.conv1.weight" in report.left_out
    assert report.notes == ()
    whole, _ = inflate(folder, {**sizes, "layers_per_block": (2, 2, 1, 0)})
    check_still_clip(model, whole)


def test_a_narrower_stage_after_the_temporal_step_is_told(make_image_autoencoder):
    _, folder = make_image_autoencoder()
    _, report = inflate(folder, {"block_out_channels": (16, 16, 32, 16)})
    assert any("averages different channels" in note for note in report.notes)


def test_a_last_relu_is_approached_by_a_sharper_silu(make_image_autoencoder):
    model, folder = make_image_autoencoder(decoder_conv_act_fn="relu")
    ours, report = inflate(folder)
    assert report.notes == ("the decoder's last activation is SiLU(4 x) / 4 in place of relu",)
    latents = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(3))
    expected = model.decode(latents, return_dict=False)[0]
    off = (ours.decode(still(latents * 0.5, 1))[:, :, 0] - expected).square().mean().sqrt()
    model.decoder.conv_act = torch.nn.SiLU()
    plain = (model.decode(latents, return_dict=False)[0] - expected).square().mean().sqrt()
    assert off < 0.35 * plain


def test_what_has_no_counterpart_is_left_out_and_named(make_image_autoencoder):
    _, folder = make_image_autoencoder(
        encoder_block_types=("ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock"),
        decoder_norm_types=("rms_norm", "batch_norm", "rms_norm", "rms_norm"),
        decoder_act_fns=("silu", "relu", "silu", "silu"),
        downsample_block_type="Conv",
    )
    ours, report = inflate(folder)
    reasons = {name: why for name, why in report.left_out.items() if name.endswith("weight")}
    assert reasons["encoder.down_blocks.3.0.attn.to_q.weight"] == "EfficientViTBlock, which has no counterpart"
    assert "stride 2" in reasons["encoder.conv_in.conv.weight"]
    assert "stride 2" in reasons["encoder.down_blocks.1.2.conv.weight"]
    assert reasons["decoder.up_blocks.1.1.norm.weight"] == "the block has batch_norm and relu"
    copied_from = len(load_file(folder / "diffusion_pytorch_model.safetensors")) - len(report.left_out)
    assert len(report.copied) == copied_from
    names = set(ours.state_dict())
    assert set(report.copied) | set(report.changed) == names
    text = list(report.lines())
    assert text[0].endswith(f"{copied_from} of {len(names)} tensors copied")
    assert not any("\n" in line for line in text)
    assert torch.isfinite(ours(still(picture(), 4))).all()


def test_another_width_stays_fresh_and_the_rest_is_copied(make_image_autoencoder):
    _, folder = make_image_autoencoder()
    ours, report = inflate(folder, {"block_out_channels": (16, 32, 32, 32)})
    assert "encoder.layers.0.conv.weight" in report.copied
    assert report.changed["encoder.layers.4.conv1.weight"] == "fresh; the 2-D model has another width here"
    assert torch.isfinite(ours(still(picture(), 4))).all()
    _, report = inflate(folder, {"block_out_channels": (16, 16, 16, 16)})
    assert report.changed["decoder.layers.0.weight"] == report.changed["encoder.layers.10.weight"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda config: config.update(_class_name="AutoencoderKL"),
            "holds a AutoencoderKL; an AutoencoderDC is needed",
        ),
        (lambda config: config.update(in_channels=1), "must have the same stages, over 3 colour channels"),
        (lambda config: config.update(encoder_layers_per_block=[0, 2, 0, 1]), "sizes of its stages cannot be read"),
        (lambda config: config.update(encoder_layers_per_block=3), "sizes of its stages cannot be read"),
        (lambda config: config.update(decoder_layers_per_block=[0, 1, 3, 1]), r"lack 'decoder.up_blocks.2.3"),
    ],
)
def test_a_folder_that_cannot_be_used_is_told_in_one_line(make_image_autoencoder, change, message):
    _, folder = make_image_autoencoder()
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message) as caught:
        inflate(folder)
    assert "\n" not in str(caught.value)


def test_weights_in_parts_are_read_and_broken_ones_refused(make_image_autoencoder, tmp_path):
    model, folder = make_image_autoencoder()
    one = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(one)
    model.save_pretrained(tmp_path / "parts", max_shard_size="30KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    (whole, report), (parts, _) = (inflate(path) for path in (folder, tmp_path / "parts"))
    assert all(torch.equal(whole.state_dict()[name], parts.state_dict()[name]) for name in report.copied)
    save_file({**tensors, "decoder.conv_in.bias": tensors["decoder.conv_in.bias"] / 0}, one)
    with pytest.raises(UserError, match=r"'decoder.conv_in.bias' in .* not finite"):
        inflate(folder)
    one.write_bytes(b"no tensors")
    with pytest.raises(UserError, match="cannot be read"):
        inflate(folder)
    one.unlink()
    with pytest.raises(UserError, match=r"has no diffusion_pytorch_model\.safetensors"):
        inflate(folder)
    with pytest.raises(UserError, match=r"no config\.json in"):
        inflate(tmp_path)


def test_other_spatial_steps_are_refused(make_image_autoencoder):
    _, folder = make_image_autoencoder()
    with pytest.raises(
        UserError, match=r"has the spatial factors \[2, 2, 2\], after which only temporal ones can come"
    ):
        inflate(folder, {"spatial_factors": (2, 2, 1, 1)})
