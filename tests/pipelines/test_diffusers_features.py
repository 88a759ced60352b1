"""What users of diffusers expect of a pipeline."""

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from diffusers.hooks import apply_group_offloading
from peft import LoraConfig
from tiny_pipeline import tiny_pipeline

from dcvideogen.pipelines.noise import video_generator


def run(pipeline, **changes):
    options = {"generator": video_generator(0, 0), "output_type": "latent", **changes}
    return pipeline("a circle", **options).frames


def test_a_lora_file_is_loaded_weighed_fused_and_unloaded(tmp_path):
    from diffusers import WanPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import get_peft_model_state_dict

    trained = tiny_pipeline()
    before = run(trained)
    trained.transformer.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=["to_q", "to_v"]))
    with torch.no_grad():
        for name, parameter in trained.transformer.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.5, generator=torch.Generator().manual_seed(len(name)))
    expected = run(trained)
    lora = convert_state_dict_to_diffusers(get_peft_model_state_dict(trained.transformer))
    WanPipeline.save_lora_weights(tmp_path, transformer_lora_layers=lora)

    pipeline = tiny_pipeline()
    pipeline.load_lora_weights(tmp_path, adapter_name="a")
    pipeline.set_adapters("a", 2.0)  # alpha is no part of such a file
    assert (run(pipeline) - expected).abs().max() < 1e-4
    pipeline.fuse_lora()
    assert (run(pipeline) - expected).abs().max() < 1e-4
    pipeline.unfuse_lora()
    pipeline.unload_lora_weights()
    assert (run(pipeline) - before).abs().max() < 1e-4
    assert (expected - before).abs().max() > 0.01


@pytest.mark.parametrize("scheduler", [
    UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
    DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
])  # fmt: skip
def test_better_solvers_come_to_the_same_place_in_the_end(scheduler):
    steps = 40
    euler = run(tiny_pipeline(FlowMatchEulerDiscreteScheduler(shift=3.0)), num_inference_steps=200, guidance_scale=1.0)
    other = run(tiny_pipeline(scheduler), num_inference_steps=steps, guidance_scale=1.0)
    assert (other - euler).abs().mean() < 0.05 * euler.abs().mean()


def test_weights_cast_by_layers_and_offloaded_by_groups_give_nearly_the_same():
    expected = run(tiny_pipeline())
    offloaded = tiny_pipeline()
    apply_group_offloading(
        offloaded.transformer, onload_device=torch.device("cpu"), offload_device=torch.device("cpu"),
        offload_type="block_level", num_blocks_per_group=1,
    )  # fmt: skip
    assert torch.equal(run(offloaded), expected)
    cast = tiny_pipeline()
    cast.transformer.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    assert 0 < (run(cast) - expected).abs().max() < 0.2


def test_the_pipeline_runs_in_half_precision():
    pipeline = tiny_pipeline().to(torch.bfloat16)
    assert (run(pipeline) - run(tiny_pipeline())).abs().mean() < 0.1
    frames = run(pipeline, output_type="pt")
    assert frames.isfinite().all()
