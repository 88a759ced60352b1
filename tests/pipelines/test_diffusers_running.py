"""How users of diffusers run a pipeline: attention back ends, compiled, offloaded, cached, with another scheduler.

Offloading to the CPU from the CPU moves nothing, and goes the same way through all hooks.
"""

import io

import accelerate
import diffusers
import pytest
import torch
from diffusers import FirstBlockCacheConfig, attention_backend
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from tiny_pipeline import tiny_autoencoder, tiny_info, tiny_pipeline

from dcvideogen.pipelines.noise import video_generator
from dcvideogen.pipelines.text_to_video import DCVideoGenPipeline

CPU = torch.device("cpu")
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}


def run(pipeline, **changes):
    options = {"generator": video_generator(0, 0), "output_type": "latent", **changes}
    return pipeline("a circle", **options).frames


@pytest.fixture(scope="module")
def expected():
    return run(tiny_pipeline())


@pytest.fixture(scope="module")
def expected_frames():
    return run(tiny_pipeline(), output_type="pt")


@pytest.fixture
def usual_backend():
    """`set_attention_backend` sets it for all models to come."""
    yield
    _AttentionBackendRegistry.set_active_backend(AttentionBackendName.NATIVE)


@pytest.mark.parametrize("backend", ["native", "_native_math"])
@pytest.mark.usefixtures("usual_backend")
def test_attention_back_ends_are_chosen_by_name_and_agree(expected, backend):
    pipeline = tiny_pipeline()
    pipeline.transformer.set_attention_backend(backend)
    chosen = {block.attn1.processor._attention_backend.value for block in pipeline.transformer.blocks}
    assert chosen == {backend}
    assert (run(pipeline) - expected).abs().max() < 1e-4
    with attention_backend("_native_math"):
        assert (run(tiny_pipeline()) - expected).abs().max() < 1e-4


def test_a_compiled_transformer_gives_the_same_and_is_saved_as_itself(expected, tmp_path):
    pipeline = tiny_pipeline()
    pipeline.transformer = torch.compile(pipeline.transformer, backend="eager")
    assert (run(pipeline) - expected).abs().max() < 1e-4
    pipeline.save_pretrained(tmp_path / "model")
    loaded = DCVideoGenPipeline.from_pretrained(tmp_path / "model")
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(run(loaded), expected)


def test_the_blocks_are_compiled_alone_each_as_one_graph(expected):
    pipeline = tiny_pipeline()
    pipeline.transformer.compile_repeated_blocks(backend="aot_eager", fullgraph=True)
    assert all(block._compiled_call_impl is not None for block in pipeline.transformer.blocks)
    assert (run(pipeline) - expected).abs().max() < 1e-4
    assert (run(pipeline, guidance_as_batch=False) - expected).abs().max() < 1e-4


def test_positions_on_the_bases_grid_are_compiled_without_a_break():
    info = tiny_info(tiny_autoencoder(), positions="base_grid", position_ratio=(1, 2, 2)).model_dump(mode="json")
    plain, compiled = tiny_pipeline(adaptation=info), tiny_pipeline(adaptation=info)
    compiled.transformer.compile(backend="eager", fullgraph=True)
    assert (run(compiled) - run(plain)).abs().max() < 1e-4


def test_parts_are_offloaded_with_the_same_result(expected_frames):
    pipeline = tiny_pipeline()
    pipeline.enable_model_cpu_offload(device="cpu")
    assert torch.equal(run(pipeline, output_type="pt"), expected_frames)


def test_layers_are_offloaded_with_the_same_result(expected_frames):
    """As enable_sequential_cpu_offload does it, which wants a GPU: between calls the weights are nowhere."""
    pipeline = tiny_pipeline()
    for name in ("text_encoder", "transformer", "autoencoder"):
        part = getattr(pipeline, name)
        accelerate.cpu_offload(part, CPU, offload_buffers=bool(part._parameters))
        assert {weight.device.type for weight in part.parameters()} == {"meta"}
    assert torch.equal(run(pipeline, output_type="pt"), expected_frames)


def test_all_parts_are_offloaded_by_groups_the_autoencoder_by_layers(expected_frames):
    pipeline = tiny_pipeline()
    groups = {"onload_device": CPU, "offload_device": CPU}
    pipeline.enable_group_offload(
        **groups, offload_type="block_level", num_blocks_per_group=1, exclude_modules=["autoencoder"]
    )
    pipeline.autoencoder.enable_group_offload(**groups, offload_type="leaf_level")
    assert torch.equal(run(pipeline, output_type="pt"), expected_frames)


def test_every_layer_of_the_autoencoder_that_has_weights_is_called_so_that_offloading_finds_it():
    autoencoder, called = tiny_autoencoder(), set()
    layers = [layer for layer in autoencoder.modules() if [*layer.parameters(False), *layer.buffers(False)]]
    for layer in layers:
        layer.register_forward_pre_hook(lambda layer, _: called.add(layer))
    with torch.no_grad():
        autoencoder.decode(autoencoder.encode(torch.zeros(1, 3, 8, 32, 32)))
    assert called == set(layers)


def test_the_autoencoders_weights_are_stored_in_half_precision_and_computed_with_in_full(expected_frames):
    pipeline = tiny_pipeline()
    pipeline.autoencoder.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    assert torch.bfloat16 in {weight.dtype for weight in pipeline.autoencoder.parameters()}
    assert 0 < (run(pipeline, output_type="pt") - expected_frames).abs().max() < 0.02


def test_blocks_that_would_be_the_same_again_are_left_out_as_diffusers_caches_do(expected):
    pipeline = tiny_pipeline()
    pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.0))  # never the same
    assert torch.equal(run(pipeline), expected)
    pipeline.transformer.disable_cache()
    pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=1e9))  # always
    assert not torch.equal(run(pipeline), expected)


@pytest.mark.parametrize(
    ("name", "changes", "evaluations"),
    [
        ("UniPCMultistepScheduler", FLOW, 8),
        ("DPMSolverMultistepScheduler", FLOW, 8),
        ("DPMSolverSinglestepScheduler", FLOW, 8),
        ("FlowMatchHeunDiscreteScheduler", {}, 15),
    ],
)
def test_a_scheduler_made_of_the_old_ones_config_takes_its_place(expected, name, changes, evaluations):
    pipeline = tiny_pipeline()
    pipeline.scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config, **changes)
    shown = io.StringIO()
    pipeline.set_progress_bar_config(file=shown, mininterval=0, miniters=1)
    latents = run(pipeline, num_inference_steps=8)
    assert len(pipeline.scheduler.timesteps) == evaluations
    assert f"{evaluations}/{evaluations}" in shown.getvalue()
    assert 0 < (latents - expected).abs().mean() < 0.2 * expected.abs().mean()


def test_another_pipeline_is_made_of_the_same_parts(expected):
    pipeline = tiny_pipeline()
    other = DCVideoGenPipeline.from_pipe(pipeline)
    other.set_progress_bar_config(disable=True)
    assert other.transformer is pipeline.transformer
    assert other.adaptation == pipeline.adaptation
    assert torch.equal(run(other), expected)


def test_parts_are_given_in_place_of_those_of_the_folder_and_dtypes_by_part(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "model")
    scheduler = diffusers.UniPCMultistepScheduler(**FLOW)
    dtypes = {"transformer": torch.bfloat16, "default": torch.float32}
    loaded = DCVideoGenPipeline.from_pretrained(tmp_path / "model", scheduler=scheduler, dtype=dtypes)
    assert loaded.scheduler is scheduler
    assert (loaded.transformer.dtype, loaded.autoencoder.dtype) == (torch.bfloat16, torch.float32)
