"""Schedulers from their folders; what is refused is in test_published_folders."""

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from tiny_pipeline import tiny_pipeline

from dcvideogen.pipelines.noise import video_generator
from dcvideogen.pipelines.scheduler import load_scheduler, shift_field, step_noise

UNIPC = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, solver_order=3)


@pytest.mark.parametrize(
    ("written", "others"),
    [(UNIPC, "solver_order"), (FlowMatchEulerDiscreteScheduler(shift=3.0, shift_terminal=0.1), "shift_terminal")],
)
def test_the_shift_is_as_configured_or_as_asked_for_and_all_else_stays(tmp_path, written, others):
    written.save_pretrained(tmp_path)
    for asked, expected in ((None, 3.0), (7.5, 7.5)):
        scheduler = load_scheduler(tmp_path, asked)
        assert type(scheduler) is type(written)
        assert scheduler.config[shift_field(scheduler.config)] == expected
        assert scheduler.config[others] == written.config[others]


def test_without_a_folder_wan_is_sampled_with_unipc(tmp_path):
    for asked, expected in ((None, 5.0), (3.0, 3.0)):
        scheduler = load_scheduler(tmp_path / "scheduler", asked)
        assert (type(scheduler), scheduler.config.flow_shift) == (UniPCMultistepScheduler, expected)
        assert (scheduler.config.use_flow_sigmas, scheduler.config.prediction_type) == (True, "flow_prediction")


STOCHASTIC = [
    FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True),
    DPMSolverMultistepScheduler(
        algorithm_type="sde-dpmsolver++", prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    ),
]


@pytest.mark.parametrize("scheduler", STOCHASTIC, ids=lambda one: type(one).__name__)
def test_the_seed_decides_a_video_that_gets_noise_in_every_step(scheduler):
    pipeline = tiny_pipeline(scheduler)
    start = torch.randn(1, 16, 2, 2, 2, generator=video_generator(5, 0))

    def made(*generators, prompts=("a circle",)):
        torch.rand(1)  # the global generator goes on
        count = len(prompts)
        latents = start.expand(count, -1, -1, -1, -1)
        return pipeline(list(prompts), generator=list(generators), latents=latents, output_type="latent").frames

    one = made(video_generator(0, 0))
    assert torch.equal(one, made(video_generator(0, 0)))
    assert (one - made(video_generator(1, 0))).abs().max() > 0.01
    assert (one - made(video_generator(0, 1))).abs().max() > 0.01
    batch = made(video_generator(0, 1), video_generator(0, 0), prompts=("a square", "a circle"))
    assert (one[0] - batch[1]).abs().max() < 1e-4
    windows = video_generator(0, 0)  # which draw one after the other
    assert torch.equal(made(windows), one)
    assert (made(windows) - one).abs().max() > 0.01


def test_a_scheduler_that_takes_no_generator_is_given_none():
    generators = [video_generator(0, 0)]
    assert step_noise(UNIPC, generators) == {}
    assert step_noise(STOCHASTIC[0], generators) == {"generator": generators}
    assert step_noise(STOCHASTIC[0], None) == {}
