import pytest
import torch

from dcvideogen.errors import UserError
from dcvideogen.training.new_latents import change_latents

LATENT_CONVS = {"encoder.layers.10.weight", "encoder.layers.10.bias", "decoder.layers.0.weight"}
pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture
def no_grad():
    with torch.no_grad():
        yield


def same_but_the_latent_convs(old, new):
    old, new = old.state_dict(), new.state_dict()
    assert set(old) == set(new)
    return {name for name in old if old[name].shape != new[name].shape or not torch.equal(old[name], new[name])}


@pytest.mark.parametrize("posterior", ["deterministic", "gaussian"])
def test_more_channels_keep_every_other_tensor_and_the_reconstruction(make_tiny, random_video, posterior):
    model, video = make_tiny(latents_std=(2.0,), posterior=posterior), random_video(11, 40, 33)
    wider, changed = change_latents(model, {"latent_channels": 20})
    assert set(changed) == same_but_the_latent_convs(model, wider) == LATENT_CONVS
    assert torch.equal(wider.encode(video)[:, :16], model.encode(video))
    assert wider.encode(video)[:, 16:].abs().max() > 0
    torch.testing.assert_close(wider(video), model(video), atol=1e-5, rtol=1e-5)
    with torch.enable_grad():
        wider(video).square().mean().backward()
    assert wider.decoder.layers[0].weight.grad[:, 16:].abs().sum() > 0
    assert torch.equal(model.encoder.layers[10].bias[:16], wider.encoder.layers[10].bias[:16])


def test_fewer_channels_keep_what_matters_for_the_decoder(make_tiny, random_video):
    model, clips = make_tiny(latents_mean=tuple(range(16)), latents_std=(3.0,)), random_video(8, 64, 64, batch=8)
    narrower, changed = change_latents(model, {"latent_channels": 8}, lambda: clips)
    assert set(changed) == same_but_the_latent_convs(model, narrower) == LATENT_CONVS
    expected = model(clips)

    def lost(other):
        return (other(clips) - expected).square().mean()

    cut, _ = change_latents(model, {"latent_channels": 8}, lambda: clips)
    last = len(cut.encoder.layers) - 1
    cut.register_to_config(latents_mean=(0.0,), latents_std=(1.0,))
    for ours, theirs in ((cut.encoder.layers[last], model.encoder.layers[last]),):
        ours.weight.copy_(theirs.weight[:8])
        ours.bias.copy_(theirs.bias[:8])
    cut.decoder.layers[0].weight.copy_(model.decoder.layers[0].weight[:, :8])
    assert lost(narrower) < 0.5 * lost(cut)
    std, mean = torch.std_mean(narrower.encode(clips), dim=(0, 2, 3, 4))
    assert mean.abs().max() < 1e-3
    assert (std - 1).abs().max() < 1e-3


def test_a_gaussian_posterior_begins_with_little_noise_around_the_old_latents(make_tiny, random_video):
    model, video = make_tiny(latents_std=(0.5,)), random_video(8, 32, 32)
    gaussian, changed = change_latents(model, {"posterior": "gaussian"})
    assert set(changed) == {"encoder.layers.10.weight", "encoder.layers.10.bias"}
    assert torch.equal(gaussian(video), model(video))
    mean, logvar = gaussian.encode_moments(video)
    assert torch.equal(mean, model.encode(video))
    torch.testing.assert_close((0.5 * logvar).exp(), torch.full_like(mean, 0.05))
    back, changed = change_latents(gaussian, {"posterior": "deterministic"})
    assert set(changed) == {"encoder.layers.10.weight", "encoder.layers.10.bias"}
    assert same_but_the_latent_convs(back, model) == set()


def test_a_latent_space_keeps_its_name_only_where_its_latents_stay(make_tiny):
    model = make_tiny(latent_space_id="abc")
    for changes, kept in (({}, "abc"), ({"partial_chunk": "fill"}, "abc"), ({"chunk_frames": 16}, None)):
        changed, tensors = change_latents(model, changes)
        assert tensors == {}
        assert changed.config.latent_space_id == kept
        assert same_but_the_latent_convs(model, changed) == set()
    assert changed.geometry.chunk_frames == 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_out_channels": (8, 8, 16, 16, 16, 32)}, r"block_out_channels is .* 32\]; the weights have \[8, 8"),
        ({"temporal_mode": "causal"}, "temporal_mode is causal; the weights were made for chunk_causal"),
        ({"latent_channels": 4}, "latent_channels is 4, fewer than the weights' 16; clips are needed"),
        ({"chunk_frames": 10}, "chunk_frames is 10; it must be a positive multiple"),
    ],
)
def test_what_cannot_be_changed_is_told(make_tiny, changes, message):
    with pytest.raises(UserError, match=message):
        change_latents(make_tiny(), changes)


def test_a_chunk_causal_model_can_become_non_causal(make_tiny, random_video):
    video = random_video(8, 32, 32)
    changed, _ = change_latents(make_tiny(), {"temporal_mode": "non_causal"})
    assert torch.equal(changed(video), make_tiny(temporal_mode="non_causal")(video))
