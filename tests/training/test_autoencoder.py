import pytest
import torch
from safetensors.torch import save_file

from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.autoencoder.state import StreamState
from dcvideogen.data.batch import ClipBatch
from dcvideogen.errors import UserError
from dcvideogen.evaluation.lpips import CHANNELS, Lpips
from dcvideogen.training.autoencoder import ReconstructionTask
from dcvideogen.training.autoencoder_export import start_from_folder
from dcvideogen.training.loop import FitSettings
from dcvideogen.training.loss_settings import GanSettings, LossSettings, LpipsSettings
from dcvideogen.training.trainer import Trainer

SMALL_GAN = {"channels": (4, 8), "start": 1}


@pytest.fixture
def video(random_video):
    return random_video(8, 32, 32, batch=2, seed=0)


def task(model, video, *, trainable=("*",), past_gradient=True, seed=0, **loss):
    return ReconstructionTask(
        model,
        sample=video,
        held_out={"clip": video[:1]},
        loss=LossSettings(**loss),
        trainable=trainable,
        past_gradient=past_gradient,
        seed=seed,
    )


def batch_of(video, chunk_frames=8, first=0):
    return ClipBatch(video, tuple(f"{i}.mp4" for i in range(len(video))), chunk_frames, first)


def trainer_of(built):
    return Trainer(built, FitSettings(steps=5, learning_rate=0.01, warmup_steps=0, precision="fp32"))


def snapshot(built):
    return {
        f"{name}.{key}": value.clone()
        for name, module in built.modules().items()
        for key, value in module.state_dict().items()
    }


def moved(built, before):
    return {name for name, value in snapshot(built).items() if not torch.equal(value, before[name])}


def lpips_files(folder):
    generator = torch.Generator().manual_seed(0)
    backbone = {
        f"features.{name}": torch.randn(t.shape, generator=generator) * 0.05
        for name, t in Lpips("alex").features.state_dict().items()
    }
    heads = {
        f"lin{k}.model.1.weight": torch.rand(1, c, 1, 1, generator=generator) for k, c in enumerate(CHANNELS["alex"])
    }
    paths = {"backbone": folder / "backbone.safetensors", "heads": folder / "heads.safetensors"}
    for path, state in zip(paths.values(), (backbone, heads), strict=True):
        save_file(state, path)
    return paths


def test_each_weight_changes_the_loss_and_names_its_term(tiny, video, tmp_path):
    def loss(**weights):
        built = task(tiny, video, **weights)
        value = built.losses(batch_of(video), 0)["autoencoder"].item()
        return value, {name: float(term) for name, term in built.terms().items()}

    plain, terms = loss()
    assert terms == {"mse": pytest.approx(plain)}
    assert loss(mse=2.0)[0] == pytest.approx(2 * plain, rel=1e-5)
    for name in ("charbonnier", "gradient", "temporal", "ms_ssim"):
        value, terms = loss(**{name: 0.5})
        assert terms[name] > 0
        assert value == pytest.approx(plain + 0.5 * terms[name], rel=1e-5)
    assert loss(charbonnier=1.0, epsilon=0.5)[0] < loss(charbonnier=1.0, epsilon=0.02)[0]
    value, terms = loss(lpips=LpipsSettings(weight=0.5, network="alex", **lpips_files(tmp_path)))
    assert value == pytest.approx(plain + 0.5 * terms["lpips"], rel=1e-5)


def test_lpips_weights_that_are_not_there_are_told_before_training(tiny, video, tmp_path):
    settings = LpipsSettings(backbone=tmp_path / "vgg16.pth", heads=tmp_path / "lpips.pth")
    with pytest.raises(UserError, match=r"there is no file .*vgg16\.pth"):
        task(tiny, video, lpips=settings)


def test_lpips_gradients_reach_the_autoencoder_a_few_frames_at_a_time(tiny, random_video, tmp_path):
    video = random_video(20, 32, 32)
    built = task(tiny, video, mse=0, lpips=LpipsSettings(network="alex", **lpips_files(tmp_path)))
    loss = built.losses(batch_of(video), 0)["autoencoder"]
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in tiny.decoder.layers[-1].parameters())
    with torch.no_grad():
        pair = (x.transpose(1, 2).flatten(0, 1) for x in (tiny(video), video))
        assert loss.item() == pytest.approx(built.lpips(*pair).mean().item(), rel=1e-4)


def test_every_parameter_is_trained(tiny, video):
    built = task(tiny, video)
    built.losses(batch_of(video), 0)["autoencoder"].backward()
    parameters = built.parameters()["autoencoder"]
    assert len(parameters) == len(list(tiny.parameters()))
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)


def test_only_the_declared_parameters_move(tiny, video):
    built = task(tiny, video, trainable=["decoder.layers.1.*", "latent"])
    before = snapshot(built)
    trainer_of(built).train_step([batch_of(video)])
    last = len(tiny.encoder.layers) - 1
    block = {f"decoder.layers.1.{name}" for name, _ in tiny.decoder.layers[1].named_parameters()}
    latent = {
        f"{conv}.{part}" for conv in (f"encoder.layers.{last}", "decoder.layers.0") for part in ("weight", "bias")
    }
    assert moved(built, before) == {f"autoencoder.model.{name}" for name in block | latent}


def test_a_batch_can_be_run_with_a_shorter_chunk(tiny, video):
    built = task(tiny, video)
    whole, cut = (built.losses(batch_of(video, length), 0)["autoencoder"].item() for length in (8, 4))
    assert whole != cut
    assert tiny.geometry.chunk_frames == 8


def test_gradients_through_the_frames_between_chunks_are_optional(make_tiny, video):
    gradients = []
    for past_gradient in (True, False):
        model = make_tiny()
        built = task(model, video, past_gradient=past_gradient)
        loss = built.losses(batch_of(video, 4), 0)["autoencoder"]
        loss.backward()
        gradients.append((loss.item(), model.encoder.layers[0].conv.weight.grad))
    assert gradients[0][0] == gradients[1][0]
    assert not torch.equal(gradients[0][1], gradients[1][1])


def test_latent_noise_disturbs_the_decoder_by_step_and_clip_alone(tiny, video):
    def loss(noise, step=3, seed=0, clips=slice(None)):
        built = task(tiny, video, latent_noise=noise, seed=seed)
        first = clips.start or 0
        return built.losses(batch_of(video[clips], first=first), step)["autoencoder"].item()

    assert loss(0.5) == loss(0.5) != loss(0)
    assert len({loss(0.5), loss(0.5, step=4), loss(0.5, seed=1), loss(0.2)}) == 4
    # However the step's clips are shared out, each has its own noise.
    assert (loss(0.5, clips=slice(0, 1)) + loss(0.5, clips=slice(1, 2))) / 2 == pytest.approx(loss(0.5), rel=1e-5)


def test_latent_noise_is_relative_to_the_latents_deviation(tiny, video):
    built = task(tiny, video, latent_noise=0.5)
    network = built.modules()["autoencoder"]
    latents = torch.randn(2, 16, 2, 8, 8) * torch.tensor([1.0, 100.0]).view(2, 1, 1, 1, 1)
    seeds = [(0, 0, 0), (0, 0, 1)]
    noise = network._perturbed(latents, None, seeds) - latents
    relative = (noise.std(dim=(1, 2, 3, 4)) / latents.std(dim=(1, 2, 3, 4))).tolist()
    assert all(0 < value < 0.5 for value in relative)
    assert relative[0] != pytest.approx(relative[1], rel=0.05)


def test_a_gaussian_posterior_is_sampled_and_its_divergence_counts(make_tiny, video):
    model = make_tiny(posterior="gaussian")
    built = task(model, video, kl=0.01)
    first, second, again = (built.losses(batch_of(video), step)["autoencoder"].item() for step in (0, 1, 0))
    assert first == again != second
    built.losses(batch_of(video), 0)["autoencoder"].backward()
    mse, kl = (float(built.terms()[name]) for name in ("mse", "kl"))
    assert first == pytest.approx(mse + 0.01 * kl, rel=1e-5)
    last = model.encoder.layers[-1]
    assert last.weight.grad[16:].abs().sum() > 0  # the log-variances
    with torch.no_grad():
        assert mse != pytest.approx((model(video) - video).square().mean().item(), rel=1e-4)


def test_a_divergence_needs_a_gaussian_posterior(tiny, video):
    with pytest.raises(
        UserError, match=r"loss\.kl is 0\.1, but the model's posterior is deterministic.*start\.posterior"
    ):
        task(tiny, video, kl=0.1)


@pytest.mark.parametrize("regulariser", ["r1", "spectral"])
@pytest.mark.parametrize("adaptive", [True, False])
def test_the_adversarial_phase_moves_both_networks_and_begins_when_told(tiny, video, regulariser, adaptive):
    built = task(tiny, video, gan=GanSettings(**SMALL_GAN, regulariser=regulariser, adaptive=adaptive))
    assert built.parameters().keys() == {"autoencoder", "discriminator"}
    trainer = trainer_of(built)
    before = snapshot(built)
    trainer.train_step([batch_of(video)])
    assert {name.split(".")[0] for name in moved(built, before)} == {"autoencoder"}
    between = snapshot(built)
    report = trainer.train_step([batch_of(video)])
    now = moved(built, between)
    # The hinge has no gradient for the last bias while all scores are inside the margin.
    last = "discriminator.layers.4.bias"
    trained = {f"{name}.{key}" for name, module in built.modules().items() for key, _ in module.named_parameters()}
    assert now >= trained - {last}
    assert {"loss/discriminator", "gradient_norm/discriminator", "gan", "gan_weight"} <= report.keys()
    assert ("r1" in report) == (regulariser == "r1")


def test_each_loss_gives_gradients_to_its_own_network_alone(tiny, video):
    built = task(tiny, video, gan=GanSettings(**SMALL_GAN, adaptive=False))
    losses = built.losses(batch_of(video), 1)
    modules = built.modules()
    losses["autoencoder"].backward()
    assert all(p.grad is None for p in modules["discriminator"].parameters())
    own = [p.grad.clone() for p in tiny.parameters()]
    losses["discriminator"].backward()
    assert all(torch.equal(p.grad, gradient) for p, gradient in zip(tiny.parameters(), own, strict=True))
    weights = [p for p in modules["discriminator"].parameters() if p.ndim > 1]
    assert len(weights) == 3
    assert all(p.grad.abs().sum() > 0 for p in weights)


def test_the_adaptive_weight_makes_the_two_gradients_equal_at_the_last_layer(tiny, video):
    def gradient(**loss):
        built = task(tiny, video, **loss)
        tiny.zero_grad()
        built.losses(batch_of(video), 1)["autoencoder"].backward()
        return tiny.decoder.layers[-1].upsample.conv.weight.grad.clone(), built.terms()

    alone, _ = gradient()
    both, terms = gradient(gan=GanSettings(**SMALL_GAN, weight=0.5))
    assert (both - alone).norm() / alone.norm() == pytest.approx(0.5, rel=1e-2)
    plain, fixed = gradient(gan=GanSettings(**SMALL_GAN, weight=0.5, adaptive=False))
    assert float(fixed["gan_weight"]) == 0.5
    assert float(terms["gan_weight"]) != 0.5
    assert not torch.equal(both, plain)


def test_the_weight_of_r1_and_the_seed_of_the_discriminator_count(tiny, video):
    def discriminator_loss(seed=0, **gan):
        built = task(tiny, video, seed=seed, gan=GanSettings(**SMALL_GAN, regulariser="r1", **gan))
        return built.losses(batch_of(video), 1)["discriminator"].item()

    assert discriminator_loss(r1=1000.0) > discriminator_loss() != discriminator_loss(seed=1)


def test_the_adaptive_weight_needs_a_trained_last_layer(tiny, video):
    with pytest.raises(UserError, match=r"last layer, which is not trained; add decoder_last"):
        task(tiny, video, trainable=["encoder"], gan=GanSettings())
    task(tiny, video, trainable=["encoder"], gan=GanSettings(adaptive=False))


def test_training_the_decoder_alone_keeps_the_latent_space(tiny, video, tmp_path):
    task(tiny, video).export(tmp_path / "before")
    model = start_from_folder(tmp_path / "before")
    other_clips = (video[..., :16] * 0.3).repeat(1, 1, 1, 1, 2)
    built = task(model, other_clips, trainable=["decoder"])
    trainer_of(built).train_step([batch_of(video)])
    built.export(tmp_path / "after")
    before, after = (AutoencoderDCV.from_pretrained(tmp_path / name) for name in ("before", "after"))
    for field in ("latent_space_id", "latents_mean", "latents_std"):
        assert after.config[field] == before.config[field]
    assert not torch.equal(before.decoder.layers[1].conv1.weight, after.decoder.layers[1].conv1.weight)
    with torch.no_grad():
        assert torch.equal(before.encode(video), after.encode(video))


def test_layers_at_latent_rate_and_the_head_stay_fp32_under_autocast(tiny, video):
    built = task(tiny, video)
    seen = {}
    for name, module in tiny.named_modules():
        if isinstance(module, torch.nn.Conv3d):
            module.register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        built.losses(batch_of(video), 0)
    last = len(tiny.encoder.layers) - 1
    head = len(tiny.decoder.layers) - 1
    assert seen["encoder.layers.0.conv"] == torch.bfloat16
    assert seen[f"decoder.layers.{head}.upsample.conv"] == torch.float32
    assert seen[f"decoder.layers.{head - 2}.conv"] == torch.bfloat16
    assert seen["decoder.layers.1.conv1"] == torch.float32
    latents = torch.ones(1, 16, 2, 1, 1, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert tiny.decoder.layers[0](latents, StreamState(), True).dtype == torch.float32
        assert tiny.encoder.layers[last](latents, StreamState(), True).dtype == torch.float32
