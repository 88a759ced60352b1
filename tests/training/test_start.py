import pytest
import torch
from pydantic import ValidationError

from dcvideogen.errors import UserError
from dcvideogen.training.start import StartSettings, make_start
from dcvideogen.weights import DEFAULT_AUTOENCODER

TINY = "dcae-tiny-f32t4c16"


def no_clips(num_clips, num_frames, size):
    raise AssertionError("this start needs no clips")


def smooth_clips(num_clips, num_frames, size):
    coarse = torch.rand(num_clips, 3, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    return torch.nn.functional.interpolate(coarse, (num_frames, size, size), mode="trilinear", align_corners=True)


def start(*, seed=0, sample=no_clips, **fields):
    return make_start(StartSettings(**fields), seed=seed, sample=sample)


def same(one, two):
    one, two = one.state_dict(), two.state_dict()
    return set(one) == set(two) and all(torch.equal(one[name], two[name]) for name in one)


def test_a_random_start_depends_on_the_seed_alone():
    before = torch.get_rng_state()
    (one, report), (again, _), (other, _) = (start(preset=TINY, seed=seed) for seed in (3, 3, 4))
    assert same(one, again)
    assert not same(one, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert one.training
    assert list(report.lines()) == [f"start: fresh weights of preset {TINY}"]


def test_overrides_change_the_configuration():
    fields = {"latent_channels": 5, "posterior": "gaussian", "temporal_mode": "causal", "chunk_frames": 12}
    fields["partial_chunk"] = "fill"
    model, _ = start(preset=TINY, **fields)
    assert {name: model.config[name] for name in fields} == fields
    assert model.geometry.chunk_frames == 12


def test_a_dct_start_measures_clips():
    asked = []

    def sample(*sizes):
        asked.append(sizes)
        return smooth_clips(*sizes)

    with pytest.raises(UserError, match="a start from the DCT needs more than 12"):
        start(preset=TINY, weights="dct", sample_clips=2, sample=sample)
    assert asked == [(2, 8, 64)]
    _, report = start(preset=DEFAULT_AUTOENCODER, weights="dct", sample_clips=9, sample=sample, latent_channels=8)
    assert "on 9 clips; the DCT coefficients keep" in next(report.lines())


@pytest.mark.parametrize("field", ["model", "preset"])
def test_a_bundled_model_goes_on_in_fp32_with_its_latent_space(field):
    model, report = start(weights="model", **{field: DEFAULT_AUTOENCODER})
    assert model.dtype == torch.float32
    assert model.training
    assert model.config.latent_space_id
    assert len(report.copied) == len(model.state_dict())
    assert report.changed == {}


def test_a_folder_and_another_preset_give_new_latent_channels(make_tiny, tmp_path):
    old = make_tiny(latents_std=(2.0,))
    old.save_pretrained(tmp_path)
    model, report = start(weights="model", model=str(tmp_path), preset=TINY, latent_channels=24)
    assert model.config.latent_channels == 24
    assert len(report.changed) == 3
    assert all(torch.equal(model.state_dict()[name], old.state_dict()[name]) for name in report.copied)
    again, _ = start(weights="model", model=str(tmp_path), latent_channels=24)
    assert same(model, again)
    model, report = start(weights="model", model=str(tmp_path), latent_channels=3, sample=smooth_clips, sample_clips=4)
    assert model.config.latent_channels == 3
    assert "3 directions of the 16 old latent channels" in "".join(report.lines())


def test_an_official_file_starts_a_model_of_its_sizes(make_tiny, tmp_path):
    old = make_tiny()
    old.to_official_checkpoint(tmp_path / "official.pt")
    with pytest.raises(UserError, match="no scaling factor is known for f32c16"):
        start(weights="official", path=tmp_path / "official.pt")
    model, report = start(
        weights="official", path=tmp_path / "official.pt", scaling_factor=0.5, partial_chunk="shorter"
    )
    assert same(model, old)
    assert (tuple(model.config.latents_std), model.config.partial_chunk) == ((2.0,), "shorter")
    assert len(report.copied) == len(old.state_dict())
    assert report.notes == ()
    wider, report = start(weights="official", path=tmp_path / "official.pt", scaling_factor=0.5, latent_channels=20)
    assert (wider.config.latent_channels, len(report.changed)) == (20, 3)
    assert wider.config.partial_chunk == "fill"
    assert "so partial_chunk is fill" in list(report.lines())[-1]


def test_an_image_autoencoder_starts_a_model_with_other_latents(tmp_path):
    from diffusers import AutoencoderDC

    sizes = {"encoder_block_out_channels": (8, 16, 16), "decoder_block_out_channels": (8, 16, 16)}
    sizes |= {"encoder_layers_per_block": (0, 1, 1), "decoder_layers_per_block": (0, 1, 1)}
    AutoencoderDC(latent_channels=4, encoder_qkv_multiscales=((),) * 3, **sizes).save_pretrained(tmp_path)
    model, report = start(weights="image", path=tmp_path, latent_channels=6, posterior="gaussian", chunk_frames=8)
    assert (model.config.latent_channels, model.config.posterior, model.config.chunk_frames) == (6, "gaussian", 8)
    assert (model.geometry.spatial_ratio, model.geometry.temporal_ratio) == (4, 4)
    assert set(report.copied) | set(report.changed) == set(model.state_dict())
    assert "fresh" in report.changed["encoder.layers.6.weight"]
    with pytest.raises(UserError, match="use another preset"):
        start(weights="image", path=tmp_path, preset=TINY)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "weights: random needs preset; known: f32t4c32,"),
        ({"weights": "dct"}, "weights: dct needs preset"),
        ({"weights": "model"}, "weights: model needs model, a model folder or the name of a bundled model"),
        ({"weights": "official"}, "weights: official needs path, a .pt file"),
        ({"weights": "image"}, "weights: image needs path, the folder of a diffusers AutoencoderDC"),
        ({"preset": TINY, "model": "x"}, "model is given, but weights is random"),
        ({"preset": TINY, "path": "x"}, "path is given, but weights is random"),
        ({"preset": TINY, "scaling_factor": 1.0}, "scaling_factor is for weights: official alone"),
        ({"preset": "f8"}, "unknown preset 'f8'; known: f32t4c32,"),
        ({"preset": TINY, "weights": "best"}, "'random', 'dct', 'model', 'official' or 'image'"),
        ({"preset": TINY, "channels": 3}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_do_not_go_together_are_told(fields, message):
    with pytest.raises(ValidationError) as caught:
        StartSettings(**fields)
    assert message in caught.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "nothing"}, "no model 'nothing': neither an existing path nor one of the bundled models"),
        ({"model": DEFAULT_AUTOENCODER, "preset": "f32t4c32"}, "only the latents can differ"),
        ({"model": DEFAULT_AUTOENCODER, "temporal_mode": "causal"}, "a kernel's taps stand for other frames"),
    ],
)
def test_weights_that_do_not_fit_are_told(fields, message):
    with pytest.raises(UserError, match=message):
        start(weights="model", **fields)
