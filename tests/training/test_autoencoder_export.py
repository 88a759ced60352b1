import torch
from safetensors.torch import load_file

from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.training.autoencoder_export import export_autoencoder, start_from_folder


def test_export_normalises_the_latents_and_names_their_space(tiny, random_video, tmp_path):
    video = random_video(8, 32, 32, batch=2)
    export_autoencoder(tiny, video, tmp_path / "model")
    model = AutoencoderDCV.from_pretrained(tmp_path / "model")
    stored = load_file(tmp_path / "model" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert model.config.latent_space_id == model.fingerprint()
    with torch.no_grad():
        latents = model.float().encode(video)
    std, mean = torch.std_mean(latents, dim=(0, 2, 3, 4))
    assert mean.abs().max() < 0.05
    assert (std - 1).abs().max() < 0.05
    assert tiny.dtype == torch.float32
    export_autoencoder(tiny, video, tmp_path / "model")  # again, over what is there
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


def test_exporting_a_trained_encoder_makes_a_new_latent_space(tiny, random_video, tmp_path):
    video = random_video(8, 32, 32, batch=2)
    export_autoencoder(tiny, video, tmp_path / "before")
    export_autoencoder(start_from_folder(tmp_path / "before"), video * 0.3, tmp_path / "after")
    before, after = (AutoencoderDCV.from_pretrained(tmp_path / name) for name in ("before", "after"))
    assert after.config.latent_space_id == after.fingerprint() != before.config.latent_space_id
    with torch.no_grad():
        std, mean = torch.std_mean(after.float().encode(video * 0.3), dim=(0, 2, 3, 4))
    assert mean.abs().max() < 0.05
    assert (std - 1).abs().max() < 0.05


def test_training_goes_on_from_an_exported_folder(tiny, random_video, tmp_path):
    video = random_video(8, 32, 32, batch=2)
    export_autoencoder(tiny, video, tmp_path / "model")
    again = start_from_folder(tmp_path / "model")
    assert again.dtype == torch.float32
    assert again.training
    config = again.config
    mean, std = (torch.tensor(config[name]).view(-1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    with torch.no_grad():
        raw = tiny.encode(video)
        assert (again.encode(video) * std + mean - raw).abs().max() < 0.02 * raw.abs().max()
        assert (again(video) - tiny(video)).abs().max() < 0.05 * tiny(video).abs().max()
