"""Schedulers from their folders; what is refused is in test_published_folders."""

import pytest
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from dcvideogen.pipelines.scheduler import load_scheduler, shift_field

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
