import logging

import pytest
import torch
from diffusers import UniPCMultistepScheduler
from tiny_pipeline import tiny_autoencoder, tiny_info, tiny_pipeline, tiny_transformer
from torch.utils._python_dispatch import TorchDispatchMode

from dcvideogen.errors import UserError
from dcvideogen.pipelines.noise import starting_noise, video_generator
from dcvideogen.pipelines.text_to_video import DCVideoGenPipeline

PROMPT = "a small red circle"


def run(pipeline, prompt=PROMPT, number=0, **changes):
    count = len(prompt) if isinstance(prompt, list) else 1
    generators = [video_generator(0, number + index) for index in range(count)]
    return pipeline(prompt, **{"generator": generators, "output_type": "pt", **changes}).frames


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


@pytest.mark.parametrize("size", [(64, 64, 8), (33, 95, 7), (1, 1, 1)])
def test_the_video_has_exactly_the_size_that_was_asked_for(pipeline, size):
    height, width, num_frames = size
    frames = run(pipeline, height=height, width=width, num_frames=num_frames)
    assert frames.shape == (1, num_frames, 3, height, width)
    assert 0 <= frames.min() <= frames.max() <= 1


def test_a_cropped_video_is_the_corner_of_the_whole_one(pipeline):
    whole = run(pipeline, height=64, width=96, num_frames=8)
    assert torch.equal(run(pipeline, height=40, width=70, num_frames=5), whole[:, :5, :, :40, :70])


def test_padding_is_told_and_a_size_that_was_not_trained_is_warned_of(pipeline, caplog):
    logging.getLogger("dcvideogen").propagate = True
    with caplog.at_level(logging.INFO, "dcvideogen"):
        run(pipeline, height=64, width=64, num_frames=8)
        assert not caplog.records
        run(pipeline, height=60, width=64, num_frames=8)
        assert "cut to the 8 frames of 64x60" in caplog.messages[-1]
        run(pipeline, height=64, width=192, num_frames=8)
    # Each once, however many handlers other tests have left on the logger.
    assert list(dict.fromkeys(record.levelname for record in caplog.records)) == ["INFO", "WARNING"]
    assert len(set(caplog.messages)) == 2
    assert "64x64 with 8 frames" in caplog.messages[-1]


def test_sizes_steps_and_guidance_default_to_those_of_the_model(pipeline):
    steps = []
    frames = run(pipeline, callback_on_step_end=lambda _, index, __, tensors: steps.append(index) or tensors)
    assert frames.shape == (1, 8, 3, 64, 64)
    assert steps == [0, 1, 2]
    assert torch.equal(frames, run(pipeline, num_inference_steps=3, guidance_scale=3.0))
    assert not torch.equal(frames, run(pipeline, guidance_scale=1.0))


def test_a_video_depends_on_its_seed_and_number_not_on_its_batch(pipeline):
    prompts = [PROMPT, "a large blue square", "a"]
    together = run(pipeline, prompts)
    for number, prompt in enumerate(prompts):
        alone = run(pipeline, prompt, number)
        assert (alone[0] - together[number]).abs().max() <= 2 / 255
    assert (together[0] - together[1]).abs().max() > 0.01


def test_the_noise_of_a_video_is_the_same_in_every_batch_to_the_bit():
    shape = (3, 16, 2, 2, 2)
    batch = starting_noise(shape, [video_generator(7, number) for number in range(3)], torch.device("cpu"))
    for number in range(3):
        alone = starting_noise((1, *shape[1:]), video_generator(7, number), torch.device("cpu"))
        assert torch.equal(alone[0], batch[number])
    assert not torch.equal(batch[0], starting_noise(shape, video_generator(8, 0), torch.device("cpu"))[0])
    with pytest.raises(UserError, match="2 generators came for 3 videos"):
        starting_noise(shape, [video_generator(7, 0)] * 2, torch.device("cpu"))


def test_guidance_in_two_passes_gives_what_one_batch_gives(pipeline):
    difference = run(pipeline, guidance_as_batch=True) - run(pipeline, guidance_as_batch=False)
    assert difference.abs().max() < 1e-4


def test_several_videos_of_a_prompt_follow_each_other(pipeline):
    generators = [video_generator(0, number) for number in range(4)]
    frames = run(pipeline, [PROMPT, "b"], num_videos_per_prompt=2, generator=generators)
    expected = run(pipeline, [PROMPT, PROMPT, "b", "b"])
    assert (frames - expected).abs().max() < 1e-5


def test_latents_in_place_of_noise_and_latents_in_place_of_frames(pipeline):
    noise = torch.randn(1, 16, 2, 2, 2, generator=video_generator(0, 0))
    latents = run(pipeline, latents=noise, output_type="latent")
    assert latents.shape == (1, 16, 2, 2, 2)
    assert torch.equal(latents, run(pipeline, latents=noise, output_type="latent"))
    with pytest.raises(UserError, match=r"latents of shape \(1, 16, 1, 2, 2\) came; \(1, 16, 2, 2, 2\)"):
        run(pipeline, latents=noise[:, :, :1])


def test_embeddings_in_place_of_texts(pipeline):
    embeds = pipeline.encode_prompt([PROMPT, ""])
    frames = run(pipeline, None, prompt_embeds=embeds[:1], negative_prompt_embeds=embeds[1:])
    assert torch.equal(frames, run(pipeline, PROMPT, negative_prompt=""))
    assert (frames - run(pipeline, PROMPT, negative_prompt="blurry")).abs().max() > 0


@pytest.mark.parametrize("output_type", ["np", "pil"])
def test_frames_come_in_the_forms_of_diffusers(pipeline, output_type):
    frames = pipeline(PROMPT, generator=video_generator(0, 0), output_type=output_type, return_dict=False)[0]
    if output_type == "np":
        assert frames.shape == (1, 8, 64, 64, 3)
    else:
        assert [len(frames), len(frames[0]), frames[0][0].size] == [1, 8, (64, 64)]


def test_a_callback_sees_changes_and_ends_the_loop():
    pipeline, seen = tiny_pipeline(), []

    def stop(pipe, index, timestep, tensors):
        seen.append((index, sorted(tensors)))
        pipe._interrupt = index == 1
        return {"latents": torch.zeros_like(tensors["latents"])}

    latents = run(
        pipeline, output_type="latent", num_inference_steps=5, callback_on_step_end=stop,
        callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"],
    )  # fmt: skip
    assert seen == [(0, ["latents", "prompt_embeds"]), (1, ["latents", "prompt_embeds"])]
    assert not latents.any()
    with pytest.raises(UserError, match="callback tensor 'noise' came; latents, prompt_embeds"):
        run(pipeline, callback_on_step_end=stop, callback_on_step_end_tensor_inputs=["noise"])


class NoReads(TorchDispatchMode):
    """Counts numbers that the host asks of tensors, which on a GPU makes it wait."""

    reads = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.reads += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("scheduler", [None, UniPCMultistepScheduler(
    prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)])  # fmt: skip
def test_the_host_asks_for_as_many_numbers_in_five_steps_as_in_two(scheduler):
    pipeline = tiny_pipeline(scheduler)
    embeds = pipeline.encode_prompt([PROMPT, ""])
    counts = []
    for steps in (2, 5):
        with NoReads() as mode:
            run(
                pipeline, None, prompt_embeds=embeds[:1], negative_prompt_embeds=embeds[1:],
                num_inference_steps=steps, output_type="latent",
            )  # fmt: skip
        counts.append(mode.reads)
    assert counts[0] == counts[1]


def test_saved_and_loaded_it_makes_the_same_video(tmp_path):
    autoencoder = tiny_autoencoder()
    info = tiny_info(autoencoder, positions="base_grid", position_ratio=(1, 2, 2))
    pipeline = tiny_pipeline(adaptation=info.model_dump(mode="json"))
    pipeline.save_pretrained(tmp_path / "model")
    loaded = DCVideoGenPipeline.from_pretrained(tmp_path / "model")
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(run(loaded), run(pipeline))
    assert not torch.equal(run(tiny_pipeline()), run(pipeline))  # positions were kept


def test_a_second_transformer_takes_the_low_noise_levels():
    high, low = tiny_transformer(0), tiny_transformer(1)
    calls = []
    for name, model in (("high", high), ("low", low)):
        model.register_forward_pre_hook(
            lambda _, __, kwargs, name=name: calls.append((name, float(kwargs["timestep"][0]))), with_kwargs=True
        )
    pipeline = tiny_pipeline(transformer=high, transformer_2=low, boundary_ratio=0.8)
    run(pipeline, num_inference_steps=6, guidance_scale=2.0, guidance_scale_2=1.0)
    assert {name for name, timestep in calls if timestep >= 800} == {"high"}
    assert {name for name, timestep in calls if timestep < 800} == {"low"}


def test_parts_of_different_latent_spaces_are_refused():
    pipeline = tiny_pipeline()
    other = tiny_info(pipeline.autoencoder, latent_space_id="0123456789abcdef").model_dump(mode="json")
    with pytest.raises(UserError, match="works with latents of space 0123456789abcdef"):
        tiny_pipeline(adaptation=other)
    with pytest.raises(UserError, match="the transformer has 8"):
        tiny_pipeline(transformer=tiny_transformer(in_channels=8, out_channels=8))
    with pytest.raises(UserError, match="without adaptation"):
        tiny_pipeline(adaptation=None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": None}, "one of prompt and prompt_embeds"),
        ({"height": 0}, "height 0 came; a whole number from 1 to 16384"),
        ({"width": 1_000_000}, "width 1000000 came"),
        ({"num_frames": 0}, "num_frames 0 came"),
        ({"num_inference_steps": 0}, "num_inference_steps 0 came"),
        ({"output_type": "mp4"}, "output_type 'mp4' came; np, pt, pil, latent"),
        ({"prompt": ["a", "b"], "negative_prompt": ["a", "b", "c"]}, "3 negative prompts came for 2 prompts"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(pipeline, arguments, message):
    with pytest.raises(UserError, match=message):
        pipeline(**{"prompt": PROMPT, **arguments})


def test_a_pipeline_offloads_between_its_phases_as_diffusers_ones_do(pipeline):
    assert pipeline.model_cpu_offload_seq.split("->")[-1] == "autoencoder"
    assert set(pipeline.components) >= {"tokenizer", "text_encoder", "transformer", "autoencoder", "scheduler"}
