import json

import numpy as np
import pytest
import torch
from pictures import waves

from dcvideogen.errors import UserError
from dcvideogen.evaluation.peers import load_peer
from dcvideogen.video import frames_to_video, video_to_frames

CPU = torch.device("cpu")
FOUR = {"latent_channels": 4}
TINY = {
    "AutoencoderKLWan": {
        "base_dim": 4, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1,
        "latents_mean": [0.0] * 4, "latents_std": [2.0] * 4,
    },
    "AutoencoderKLLTXVideo": {
        "latent_channels": 8, "block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4,
        "layers_per_block": (1,) * 5, "decoder_layers_per_block": (1,) * 5,
    },
    "AutoencoderKLHunyuanVideo": {
        **FOUR, "block_out_channels": (8,) * 4, "layers_per_block": 1, "norm_num_groups": 4,
    },
    "AutoencoderKLHunyuanVideo15": {**FOUR, "block_out_channels": (8,) * 5, "layers_per_block": 1},
    "AutoencoderKLCogVideoX": {
        **FOUR, "block_out_channels": (8,) * 4, "layers_per_block": 1, "norm_num_groups": 2,
    },
    "AutoencoderKLCosmos": {
        **FOUR, "encoder_block_out_channels": (8,) * 4, "decode_block_out_channels": (8,) * 4, "num_layers": 1,
        "attention_resolutions": (8,), "resolution": 64,
    },
    "AutoencoderKLMochi": {
        **FOUR, "encoder_block_out_channels": (32,) * 4, "decoder_block_out_channels": (32,) * 4,
        "layers_per_block": (1,) * 5, "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4,
    },
    "AutoencoderKLMagvit": {
        **FOUR, "block_out_channels": (8,) * 4, "layers_per_block": 1, "norm_num_groups": 2,
    },
    "AutoencoderKLLTX2Video": {
        "latent_channels": 8, "block_out_channels": (8, 16, 32, 64), "decoder_block_out_channels": (8, 16, 32),
        "layers_per_block": (1,) * 5, "decoder_layers_per_block": (1,) * 4,
        "spatial_compression_ratio": 32, "temporal_compression_ratio": 8,
    },
}  # fmt: skip
# Class -> (pixels, frames) per latent, numbers in the video per number in the latents.
RATIOS = {
    "AutoencoderKLWan": (8, 4, 192), "AutoencoderKLLTXVideo": (32, 8, 3072), "AutoencoderKLHunyuanVideo": (8, 4, 192),
    "AutoencoderKLHunyuanVideo15": (16, 4, 768), "AutoencoderKLCogVideoX": (8, 4, 192),
    "AutoencoderKLCosmos": (8, 8, 384), "AutoencoderKLMochi": (8, 6, 288), "AutoencoderKLMagvit": (8, 4, 192),
    "AutoencoderKLLTX2Video": (32, 8, 3072),
}  # fmt: skip


def make_peer(folder, class_name, **overrides):
    """A tiny random model of a real class in a folder."""
    import diffusers

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(diffusers, class_name)(**{**TINY[class_name], **overrides})
    model.save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize("class_name", TINY)
def test_every_known_class_gives_back_any_size_and_length(tmp_path, class_name):
    make_peer(tmp_path / "peer", class_name)
    subject = load_peer(class_name, tmp_path / "peer", device=CPU)
    frames, seen = waves(7, 40, 72), []
    with torch.inference_mode():
        rebuilt = list(subject.stream(iter(frames), seen.append))
    assert [frame.shape for frame in rebuilt] == [(40, 72, 3)] * 7
    traits = subject.traits
    assert (traits.spatial_ratio, traits.temporal_ratio, traits.compression_ratio) == RATIOS[class_name]
    assert seen[0].shape[1] == traits.latent_channels
    assert (traits.kind, traits.chunk_frames, traits.name) == ("peer", None, class_name)


@pytest.mark.parametrize("class_name", ["AutoencoderKLWan", "AutoencoderKLLTXVideo", "AutoencoderKLHunyuanVideo"])
def test_a_clip_of_its_own_size_is_what_the_class_itself_makes_at_the_posteriors_mode(tmp_path, class_name):
    model = make_peer(tmp_path, class_name)
    subject = load_peer(class_name, tmp_path, device=CPU)
    frames = waves(1 + subject.traits.temporal_ratio, 32, 64)
    with torch.inference_mode():
        latents = model.encode(frames_to_video(frames)).latent_dist.mode()
        expected = video_to_frames(model.decode(latents).sample)
        rebuilt = [np.stack(list(subject.stream(frames, lambda _: None))) for _ in range(2)]
    assert np.array_equal(rebuilt[0], expected)
    assert np.array_equal(rebuilt[0], rebuilt[1])  # nothing is sampled


def test_padding_repeats_the_end_and_is_cropped(tmp_path):
    make_peer(tmp_path, "AutoencoderKLWan")
    subject = load_peer("AutoencoderKLWan", tmp_path, device=CPU)
    frames = waves(7, 36, 40)
    padded = [np.pad(frame, ((0, 4), (0, 0), (0, 0)), mode="edge") for frame in (*frames, frames[-1], frames[-1])]
    with torch.inference_mode():
        rebuilt, whole = (list(subject.stream(part, lambda _: None)) for part in (frames, padded))
    assert np.array_equal(np.stack(rebuilt), np.stack(whole)[:7, :36])


def test_a_decoder_that_wants_a_timestep_gets_that_of_clean_latents(tmp_path):
    model = make_peer(tmp_path, "AutoencoderKLLTXVideo", timestep_conditioning=True)
    subject = load_peer("AutoencoderKLLTXVideo", tmp_path, device=CPU)
    video = frames_to_video(waves(9, 32, 32))
    with torch.inference_mode():
        latents = subject.encode(video)
        expected = model.decode(latents, torch.zeros(1)).sample
        assert (subject.decode(latents, 9, 32, 32) - expected).abs().max() < 1e-4


def test_the_scaling_that_a_peer_states_is_told(tmp_path):
    make_peer(tmp_path / "wan", "AutoencoderKLWan")
    make_peer(tmp_path / "cog", "AutoencoderKLCogVideoX", scaling_factor=0.7)
    assert "each of 4 channels" in load_peer("AutoencoderKLWan", tmp_path / "wan", device=CPU).traits.stated
    assert load_peer("AutoencoderKLCogVideoX", tmp_path / "cog", device=CPU).traits.stated == "factor 0.7000"


def test_what_cannot_be_loaded_is_told(tmp_path):
    with pytest.raises(UserError, match=r"AutoencoderKLWann came; known .*AutoencoderKLHunyuanVideo, .*KLWan$"):
        load_peer("AutoencoderKLWann", tmp_path, device=CPU)
    with pytest.raises(UserError, match=r"no config\.json; give a folder"):
        load_peer("AutoencoderKLWan", tmp_path, device=CPU)
    make_peer(tmp_path / "wan", "AutoencoderKLWan")
    with pytest.raises(UserError, match=r"holds a AutoencoderKLWan, --peer-class says AutoencoderKLMochi"):
        load_peer("AutoencoderKLMochi", tmp_path / "wan", device=CPU)
    weights = tmp_path / "wan" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_peer("AutoencoderKLWan", tmp_path / "wan", device=CPU)
    (tmp_path / "wan" / "config.json").write_text("[1]")
    with pytest.raises(UserError, match="no JSON object"):
        load_peer("AutoencoderKLWan", tmp_path / "wan", device=CPU)


def test_a_clip_that_a_peer_does_not_take_is_a_user_error_with_its_name(tmp_path):
    make_peer(tmp_path, "AutoencoderKLWan")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "scale_factor_spatial": 4}))
    subject = load_peer("AutoencoderKLWan", tmp_path, device=CPU)
    with pytest.raises(UserError, match=r"AutoencoderKLWan: its configuration states 4 pixels .* mend config"):
        subject.encode(torch.zeros(1, 3, 1, 32, 32))
    with pytest.raises(UserError, match=r"gave back \(1, 32, 32\) .* where \(5, 32, 32\) went in"):
        subject.decode(torch.zeros(1, 4, 1, 4, 4), 5, 32, 32)
    with pytest.raises(UserError, match=r"AutoencoderKLWan does not take this clip"):
        subject.decode(torch.zeros(1, 5, 1, 4, 4), 1, 32, 32)
