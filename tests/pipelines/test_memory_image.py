"""What the image of image to video takes: the encoding of its condition, CLIP, and weights that stay between phases."""

import accelerate.hooks
import pytest
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from tiny_pipeline import text_encoder, tiny_autoencoder, tiny_info, tiny_transformer
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from dcvideogen.pipelines.image_to_video import DCVideoGenImageToVideoPipeline
from dcvideogen.pipelines.memory_autoencoder import DecodePlan, encode_need
from dcvideogen.pipelines.memory_counts import Counts, Rates
from dcvideogen.pipelines.memory_models import Asked, bytes_of
from dcvideogen.pipelines.memory_plan import OFFLOAD, RESIDENT, make_plan, weights_there
from dcvideogen.pipelines.memory_published import published_networks
from dcvideogen.pipelines.placement import networks_in

RATES = Rates(1e12, 1e12, "a guess")
SMALL = Asked(height=96, width=64, num_frames=18, steps=4, text_tokens=32)
PARTS = {"text encoder": "text_encoder", "image encoder": "image_encoder", "transformer 1": "transformer"}


@pytest.fixture(scope="module")
def pipeline():
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14
    )
    autoencoder, text = tiny_autoencoder(), text_encoder()
    pipeline = DCVideoGenImageToVideoPipeline(
        tokenizer=text.tokenizer,
        text_encoder=text.model,
        transformer=tiny_transformer(in_channels=36, image_dim=16, added_kv_proj_dim=24),
        autoencoder=autoencoder,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        image_encoder=CLIPVisionModel(config).eval(),
        image_processor=CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        adaptation=tiny_info(autoencoder).model_dump(mode="json"),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def networks(pipeline):
    return networks_in(pipeline)


def counts(networks, **changes):
    return Counts(networks, Asked(**{**vars(SMALL), **changes}), RATES, on_cpu=True)


def test_an_image_has_a_phase_of_its_own_and_weights_of_its_own(networks, pipeline):
    plan = make_plan(counts(networks), RESIDENT, True, DecodePlan())
    assert [phase.name for phase in plan.phases] == ["text", "image", "denoising", "decoding"]
    assert networks.weights["image encoder"] == bytes_of(pipeline.image_encoder)


def test_the_condition_is_encoded_from_a_clip_of_whole_latents_or_from_the_image_alone(networks):
    model = networks.autoencoder
    whole, alone = (counts(networks, condition=how) for how in ("zeros", "alone"))
    assert whole.encode(DecodePlan()) == encode_need(model, DecodePlan(), 96, 64, 20, on_cpu=True)
    image = encode_need(model, DecodePlan(), 96, 64, 4, on_cpu=True)
    assert alone.encode(DecodePlan()).device == image.device + 3 * 96 * 64 * 16 * 4
    assert alone.encode(DecodePlan()).device < whole.encode(DecodePlan()).device
    assert alone.encode_seconds(DecodePlan()) < whole.encode_seconds(DecodePlan())


def test_a_video_in_windows_takes_what_one_window_takes_until_it_is_decoded(networks):
    whole, one = counts(networks, num_frames=64), counts(networks, num_frames=16)
    windows = counts(networks, num_frames=64, window_frames=16)
    assert (windows.latents, windows.activations) == (one.latents, one.activations)
    assert windows.activations[2] < whole.activations[2]
    assert windows.encode(DecodePlan()) == one.encode(DecodePlan())
    assert windows.denoise_seconds(as_batch=True) == pytest.approx(4 * one.denoise_seconds(as_batch=True))
    assert windows.encode_seconds(DecodePlan()) == pytest.approx(4 * one.encode_seconds(DecodePlan()))
    assert windows.forwards == 4 * one.forwards
    assert windows.decode(DecodePlan()) == whole.decode(DecodePlan())
    assert windows.decode_seconds(DecodePlan()) == whole.decode_seconds(DecodePlan())


def test_clip_keeps_what_its_layers_made_of_every_image(networks):
    one, two = (networks.image_activations(Asked(64, 64, 8, images=images)) for images in (1, 2))
    assert networks.image_tokens == 5
    hidden = 5 * 16 * 4
    assert 4 * hidden < one < two <= 2 * one  # of the embedding and of three layers
    assert networks.image_work(Asked(64, 64, 8, images=2)).flops == 2 * networks.image_work(SMALL).flops


def test_more_images_are_more_tokens_for_the_transformer(networks):
    one, two = (networks.transformer_work(Asked(64, 64, 8, images=images)) for images in (1, 2))
    assert two.flops > one.flops
    assert two.launches == one.launches


def test_what_goes_behind_the_latents_counts_while_denoising(networks):
    numbers = 5 * 3 * 2
    assert counts(networks).latents == 4 * numbers * (8 * 16 + 20)


def test_the_published_model_for_images_has_the_published_clip():
    networks = published_networks("wan2.1-i2v-14b")
    parameters = sum(one.numel() for one in networks.image_encoder.parameters())
    assert parameters / 1e6 == pytest.approx(630.8, abs=0.1)
    assert networks.image_tokens == 257
    asked = Asked(480, 832, 80)
    # Bytes in bf16 of 33 layers' tokens, and of what the widest of them works on.
    assert 33 * 257 * 1280 * 2 < networks.image_activations(asked) < 60 * 257 * 1280 * 2


def test_offloaded_weights_are_where_the_plan_counts_them(pipeline, networks, monkeypatch):
    """What accelerate's hooks bring in the order of a call, each after what is there of the one before it was taken."""
    names = {id(part): name for name, part in pipeline.components.items()}
    there, seen = set(), []
    bring = accelerate.hooks.CpuOffload.pre_forward

    def brought(self, module, *args, **kwargs):
        if self.prev_module_hook is not None:
            there.discard(names[id(self.prev_module_hook.model)])
        there.add(names[id(module)])
        if not seen or seen[-1] != there:
            seen.append(set(there))
        return bring(self, module, *args, **kwargs)

    monkeypatch.setattr(accelerate.hooks.CpuOffload, "pre_forward", brought)
    pipeline.enable_model_cpu_offload(device="cpu")
    pipeline(Image.new("RGB", (64, 64)), "a circle", output_type="pt", num_inference_steps=2)
    pipeline.remove_all_hooks()
    text, encode, clip, denoise, decode = seen
    sizes = {PARTS.get(name, name): size for name, size in networks.weights.items()}
    planned, _ = weights_there(counts(networks), OFFLOAD, passes=2)
    found = {"text": text, "image": encode, "clip": clip, "denoising": denoise, "decoding": decode}
    assert {name: sum(sizes[part] for part in parts) for name, parts in found.items()} == planned


def test_an_image_in_place_of_the_first_latent_is_encoded_where_one_is_given():
    autoencoder, text = tiny_autoencoder(), text_encoder()
    info = tiny_info(autoencoder, image_condition="alone", first_latent="given")
    both = DCVideoGenImageToVideoPipeline(
        tokenizer=text.tokenizer, text_encoder=text.model, transformer=tiny_transformer(), autoencoder=autoencoder,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), adaptation=info.model_dump(mode="json"),
    )  # fmt: skip
    networks = networks_in(both)
    for images, expected in ((0, ["text", "denoising", "decoding"]), (1, ["text", "image", "denoising", "decoding"])):
        there = counts(networks, condition="alone", images=images)
        assert [phase.name for phase in make_plan(there, OFFLOAD, True, DecodePlan()).phases] == expected
        stays = bytes_of(networks.autoencoder) if images else 0
        assert weights_there(there, OFFLOAD, passes=1)[0]["denoising"] == bytes_of(networks.transformers[0]) + stays
