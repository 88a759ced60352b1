import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from PIL import Image
from tiny_pipeline import text_encoder, tiny_autoencoder, tiny_info, tiny_transformer
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from dcvideogen.adaptation.backbone_wan import WAN
from dcvideogen.adaptation.batch import LatentBatch
from dcvideogen.adaptation.folder import SamplingDefaults
from dcvideogen.adaptation.sampling import sample_latents
from dcvideogen.conditioning import condition, condition_latents, condition_video
from dcvideogen.errors import UserError
from dcvideogen.pipelines.denoise import Conditions, Expert, predict
from dcvideogen.pipelines.image_to_video import DCVideoGenImageToVideoPipeline
from dcvideogen.pipelines.loading import load_pipeline
from dcvideogen.pipelines.noise import video_generator
from dcvideogen.pipelines.text_to_video import DCVideoGenPipeline

I2V = {"in_channels": 36}
UNIPC = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
CLIP = {"image_dim": 16, "added_kv_proj_dim": 24}


def make(**changes):
    autoencoder, text = tiny_autoencoder(), text_encoder()
    parts = {
        "tokenizer": text.tokenizer, "text_encoder": text.model, "transformer": tiny_transformer(**I2V),
        "autoencoder": autoencoder, "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        "adaptation": tiny_info(autoencoder).model_dump(mode="json"),
    }  # fmt: skip
    pipeline = DCVideoGenImageToVideoPipeline(**{**parts, **changes})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def pipeline():
    return make()


def picture(seed, width=64, height=64):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def run(pipeline, image, **changes):
    options = {"generator": video_generator(0, 0), "output_type": "pt", **changes}
    return pipeline(image, "a circle", **options).frames


def inputs_of(pipeline, image, **changes):
    """What the transformer is given in the first step."""
    seen = []
    hook = pipeline.transformer.register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(kwargs["hidden_states"]), with_kwargs=True
    )
    run(pipeline, image, guidance_scale=1.0, num_inference_steps=1, output_type="latent", **changes)
    hook.remove()
    return seen[0]


def test_the_transformer_sees_the_condition_that_adaptation_trained_with(pipeline):
    image = picture(0)
    video = torch.tensor(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
    latents = pipeline.autoencoder.encode(condition_video(video, 8, 4))
    given = inputs_of(pipeline, image, height=64, width=64, num_frames=8)
    assert given.shape == (1, 36, 2, 2, 2)
    assert (given[:, 16:] - condition(latents)).abs().max() < 1e-5


@pytest.mark.parametrize("how", ["alone", "chunk"])
def test_the_condition_is_made_as_the_adaptation_says(how):
    autoencoder = tiny_autoencoder()
    info = tiny_info(autoencoder, image_condition=how)
    pipeline = make(autoencoder=autoencoder, adaptation=info.model_dump(mode="json"))
    video = torch.rand(1, 3, 8, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for image, given in ((video[:, :, 0], 1), (video, 2)):  # a picture; the end of a video to go on from
        seen = inputs_of(pipeline, image, height=64, width=64, num_frames=16, last_image=video[:, :, 3])
        first = image[:, :, None].expand(-1, -1, 4, -1, -1) if given == 1 else image
        latents = condition_latents(
            autoencoder.encode, first, 16, how=how, latent_frames=4, chunk_frames=8, last_image=video[:, :, 3]
        )
        wanted = condition(latents, given=given, last=True)
        assert (seen[:, 16:] - wanted).abs().max() < 1e-5


@pytest.mark.parametrize(
    "scheduler",
    [
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True),
        UniPCMultistepScheduler(**UNIPC),
    ],
)
def test_a_first_latent_that_is_given_is_seen_clean_at_every_step_and_comes_out(scheduler):
    autoencoder = tiny_autoencoder()
    info = tiny_info(autoencoder, image_condition="alone", first_latent="given")
    pipeline = make(autoencoder=autoencoder, scheduler=scheduler, adaptation=info.model_dump(mode="json"))
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    size = {"height": 64, "width": 64, "num_frames": 16}
    for changes, places in (({}, [0]), ({"last_image": image}, [0, -1])):
        clean = autoencoder.encode(image[:, :, None].expand(-1, -1, 4, -1, -1))
        seen = inputs_of(pipeline, image, **size, **changes)[:, : clean.shape[1]]
        made = run(pipeline, image, **size, **changes, num_inference_steps=5, guidance_scale=3.0, output_type="latent")
        for place in places:
            torch.testing.assert_close(seen[:, :, place], clean[:, :, 0])
            torch.testing.assert_close(made[:, :, place], clean[:, :, 0], atol=1e-5, rtol=1e-5)
        assert not torch.isclose(made[:, :, 1], clean[:, :, 0]).all()
    with pytest.raises(UserError, match=r"image guidance 2 came, .* leave it out"):
        run(pipeline, image, **size, image_guidance_scale=2.0)


@pytest.fixture(scope="module")
def both():
    """Of a transformer that takes the image's latent in place of its first one, as Wan 2.2 5B."""
    autoencoder = tiny_autoencoder()
    info = tiny_info(autoencoder, image_condition="alone", first_latent="given")
    transformer = tiny_transformer(patch_size=(1, 2, 2))
    return make(autoencoder=autoencoder, transformer=transformer, adaptation=info.model_dump(mode="json"))


def test_a_transformer_without_channels_for_an_image_is_given_its_latent_with_timestep_zero(both):
    size = {"height": 64, "width": 128, "num_frames": 16}
    noise = torch.randn(1, 16, 4, 2, 4, generator=torch.Generator().manual_seed(1))
    image = torch.rand(1, 3, 64, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    seen = []
    hook = both.transformer.register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(kwargs["timestep"]), with_kwargs=True
    )
    made = run(both, image, **size, latents=noise, guidance_scale=3.0, num_inference_steps=1, output_type="latent")
    hook.remove()
    assert seen[0].shape == (2, 4 * 1 * 2)
    assert not seen[0][:, :2].any()
    assert (seen[0][:, 2:] == 1000).all()
    clean = both.autoencoder.encode(image[:, :, None].expand(-1, -1, 4, -1, -1))
    latents = torch.cat([clean, torch.zeros(1, 16, 3, 2, 4)], dim=2)
    embeds, nothing = both.encode_prompt(["a circle"]), both.encode_prompt([""])
    mask = torch.ones(1, embeds.shape[1], dtype=torch.bool)
    batch = LatentBatch(
        names=("a",), first=0, latents=latents, prompt_embeds=embeds, prompt_mask=mask, condition=condition(latents)
    )
    with torch.no_grad():  # as the adaptation's own scores are sampled
        expected = sample_latents(
            both.transformer, WAN, batch, noise, null_prompt=(nothing[0], mask[0]), steps=1, shift=3.0, guidance=3.0,
            first_latent="given",
        )  # fmt: skip
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-4)


def test_such_a_transformer_makes_videos_from_text_alone_too(both, tmp_path):
    text = DCVideoGenPipeline(
        **{name: part for name, part in both.components.items() if not name.startswith("image_")},
        adaptation=both.config.adaptation,
    )
    text.set_progress_bar_config(disable=True)
    wanted = text("a circle", generator=video_generator(0, 0), output_type="latent").frames
    assert torch.equal(run(both, None, output_type="latent"), wanted)
    with pytest.raises(UserError, match="an image is needed"):
        run(both, None, last_image=picture(0))
    both.save_pretrained(tmp_path / "model")
    for task in ("t2v", "i2v", None):
        loaded = load_pipeline(tmp_path / "model", task=task)
        assert loaded.tasks == ("i2v", "t2v")
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(run(loaded, None, output_type="latent"), wanted)


def guided(pipeline, guidance, image_guidance, as_batch):
    """A velocity, and the inputs of the transformer's passes."""
    generator, seen = torch.Generator().manual_seed(0), []
    draw = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    hook = pipeline.transformer.register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(kwargs["hidden_states"]), with_kwargs=True
    )
    noisy, text, negative, channels = draw(2, 16, 2, 2, 2), draw(2, 4, 64), draw(2, 4, 64), draw(2, 20, 2, 2, 2)
    given = Conditions(text, negative, channels, image_guidance=image_guidance)
    with torch.no_grad():
        velocity = predict(
            Expert(pipeline.transformer, guidance), noisy, torch.tensor(500.0), given,
            as_batch=as_batch, attention_kwargs=None,
        )  # fmt: skip
    hook.remove()
    return velocity, seen


@pytest.mark.parametrize(("guidance", "passes"), [(3.0, 3), (1.0, 2)])
def test_image_guidance_leads_away_from_no_image_in_one_batch_or_pass_by_pass(pipeline, guidance, passes):
    as_batch, whole = guided(pipeline, guidance, 1.5, True)
    one_by_one, parts = guided(pipeline, guidance, 1.5, False)
    assert (len(whole), len(parts)) == (1, passes)
    assert torch.equal(torch.cat(parts), whole[0])
    assert not parts[-1][:, 16:].any()
    assert (as_batch - one_by_one).abs().max() < 1e-4
    without, _ = guided(pipeline, guidance, 1.0, False)
    near, _ = guided(pipeline, guidance, 1 + 1e-6, False)
    assert (near - without).abs().max() < 1e-4
    # Linear in the image guidance: what one step of it adds, another adds again.
    twice, _ = guided(pipeline, guidance, 2.0, False)
    torch.testing.assert_close(twice - one_by_one, one_by_one - without, atol=1e-4, rtol=1e-4)


def test_image_guidance_is_the_models_own_unless_it_is_told(pipeline):
    plain, strong = (run(pipeline, picture(0), image_guidance_scale=scale) for scale in (None, 2.0))
    assert torch.equal(plain, run(pipeline, picture(0), image_guidance_scale=1.0))
    assert not torch.equal(plain, strong)
    info = tiny_info(pipeline.autoencoder, sampling=SamplingDefaults(steps=3, guidance=3.0, image_guidance=2.0))
    own = make(autoencoder=pipeline.autoencoder, adaptation=info.model_dump(mode="json"))
    assert torch.equal(run(own, picture(0)), strong)


def test_a_last_image_fills_the_last_latent_and_its_mask(pipeline):
    given = inputs_of(pipeline, picture(0), last_image=picture(1), num_frames=12)
    assert given[0, 16:20, :, 0, 0].T.tolist() == [[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]]
    alone = inputs_of(pipeline, picture(0), num_frames=12)
    assert (given[:, 20:, -1] - alone[:, 20:, -1]).abs().max() > 0.01
    with pytest.raises(UserError, match="8 frames are given and 4 asked for"):
        run(pipeline, picture(0), last_image=picture(1), num_frames=4)


def test_the_image_changes_the_video_and_its_size_follows_its_shape(pipeline):
    wide = picture(0, 200, 50)
    frames = run(pipeline, wide)
    assert frames.shape == (1, 8, 3, 32, 128)
    assert (run(pipeline, picture(1, 200, 50)) - frames).abs().max() > 0.001
    assert run(pipeline, wide, height=50, width=30, num_frames=3).shape == (1, 3, 3, 50, 30)


def test_files_pictures_and_tensors_are_the_same_image(pipeline, tmp_path):
    image = picture(0)
    image.save(tmp_path / "a.png")
    tensor = torch.tensor(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
    one, two, three = (run(pipeline, given) for given in (image, tmp_path / "a.png", tensor))
    assert torch.equal(one, two)
    assert (one - three).abs().max() < 1e-5


def test_clip_tokens_reach_the_transformer_and_survive_saving(tmp_path):
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    processor = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = CLIPVisionModel(config).eval()
    pipeline = make(transformer=tiny_transformer(**I2V, **CLIP), image_encoder=encoder, image_processor=processor)
    frames = run(pipeline, picture(0), output_type="latent")
    pipeline.save_pretrained(tmp_path / "model")
    loaded = DCVideoGenImageToVideoPipeline.from_pretrained(tmp_path / "model")
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(run(loaded, picture(0), output_type="latent"), frames)
    with pytest.raises(UserError, match="no image_encoder came"):
        make(transformer=tiny_transformer(**I2V, **CLIP))


def test_wrong_images_and_transformers_are_refused(pipeline, tmp_path):
    with pytest.raises(UserError, match="an image is needed"):
        run(pipeline, None)
    with pytest.raises(UserError, match=r"shape \(3, 64, 64\) came"):
        run(pipeline, torch.zeros(3, 64, 64))
    with pytest.raises(UserError, match="an image tensor of 64x32 pixels came for a video of 64x64"):
        run(pipeline, torch.zeros(1, 3, 32, 64), height=64, width=64)
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(UserError, match=r"a\.png"):
        run(pipeline, tmp_path / "a.png")
    with pytest.raises(UserError, match="16 input channels came; 36 are needed"):
        make(transformer=tiny_transformer())
