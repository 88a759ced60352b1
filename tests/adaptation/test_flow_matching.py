import json
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from tiny_models import tiny_batch, tiny_row, tiny_transformer

from dcvideogen.adaptation.backbones import FAMILIES
from dcvideogen.adaptation.flow_matching import ClipDraw, FlowTask, without_image, without_text
from dcvideogen.adaptation.flow_settings import FlowSettings
from dcvideogen.adaptation.folder import AdaptationInfo, load_transformer
from dcvideogen.adaptation.lora import LoraSettings, add_lora
from dcvideogen.errors import UserError
from dcvideogen.flow import add_noise, velocity_target
from dcvideogen.training.checkpoint import Checkpoint, find_checkpoints
from dcvideogen.training.loop import FitSettings, fit

WAN = FAMILIES["wan"]
NULL = (torch.zeros(8, 16), torch.zeros(8, dtype=torch.bool))
INFO = AdaptationInfo(
    latent_space_id="new", latent_channels=4, spatial_ratio=32, temporal_ratio=4, base="base", family="wan"
)


class Batches:
    """The same clips at every step, cut as asked."""

    def __init__(self, count=4):
        self.whole = tiny_batch(count=count)

    def batch(self, step, part, num_parts):
        size = len(self.whole.latents) // num_parts
        own = slice(part * size, (part + 1) * size)
        whole = self.whole
        return replace(
            whole, latents=whole.latents[own], prompt_embeds=whole.prompt_embeds[own],
            prompt_mask=whole.prompt_mask[own], names=whole.names[own], first=own.start,
        )  # fmt: skip

    def state(self):
        return {}

    def load_state(self, state):
        pass


def make_task(transformer=None, trainable=("*",), **changes):
    transformer = tiny_transformer("wan") if transformer is None else transformer
    options = {"held_out": [tiny_batch(seed=9)], "flow": FlowSettings(), "info": INFO, "seed": 3} | changes
    null = (torch.zeros(8, tiny_batch().prompt_embeds.shape[-1]), NULL[1])
    return FlowTask(transformer, WAN, null_prompt=null, trainable=trainable, **options)


def settings(steps=3, **changes):
    every = {"log_every": 1, "validate_every": steps, "checkpoint_every": steps, "export_every": steps}
    options = {"learning_rate": 1e-3, "warmup_steps": 0, "precision": "fp32", "tensorboard": False} | every | changes
    return FitSettings(steps=steps, **options)


def test_the_loss_is_that_of_the_velocity_at_the_draws_of_each_clip():
    task, batch = make_task(flow=FlowSettings(text_dropout=0, shift=3.0)), tiny_batch()
    loss = task.losses(batch, step=5)["transformer"]
    draws = [ClipDraw(3, 5, index) for index in range(2)]
    sigma = torch.cat([draw.sigma(task.flow) for draw in draws])
    for draw in draws:
        draw.share(), draw.share()
    noise = torch.stack([draw.noise(batch.latents.shape[1:]) for draw in draws])
    noisy = add_noise(batch.latents, noise, sigma)
    velocity = task.transformer(noisy, 1000 * sigma, batch.prompt_embeds, return_dict=False)[0]
    wanted = (velocity - velocity_target(batch.latents, noise)).square().mean()
    torch.testing.assert_close(loss, wanted)


def test_parts_of_a_batch_have_the_loss_of_the_whole():
    task, data = make_task(), Batches()
    whole = task.losses(data.batch(0, 0, 1), 0)["transformer"]
    parts = [task.losses(data.batch(0, part, 2), 0)["transformer"] for part in range(2)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


def test_text_is_dropped_as_often_as_asked_for():
    batch = tiny_batch(count=2)
    null = (torch.full((8, batch.prompt_embeds.shape[-1]), 7.0), torch.ones(8, dtype=torch.bool))
    dropped = without_text(batch, torch.tensor([True, False]), null)
    assert torch.equal(dropped.prompt_embeds[0], null[0])
    assert dropped.prompt_mask[0].all()
    assert torch.equal(dropped.prompt_embeds[1], batch.prompt_embeds[1])
    always, never = (make_task(flow=FlowSettings(text_dropout=share)) for share in (1.0, 0.0))
    other = replace(batch, prompt_embeds=batch.prompt_embeds + 1)
    assert always.losses(batch, 0)["transformer"] == always.losses(other, 0)["transformer"]
    assert never.losses(batch, 0)["transformer"] != never.losses(other, 0)["transformer"]


def test_a_dropped_image_leaves_no_condition_and_no_image_tokens():
    batch = tiny_batch(condition_channels=8, image_dim=12)
    dropped = without_image(batch, torch.tensor([True, False]))
    assert not dropped.condition[0].any()
    assert not dropped.image_embeds[0].any()
    assert torch.equal(dropped.condition[1], batch.condition[1])
    assert torch.equal(dropped.image_embeds[1], batch.image_embeds[1])


def test_a_first_latent_that_is_given_clean_is_left_out_of_the_loss():
    task, batch = make_task(flow=FlowSettings(text_dropout=0)), tiny_batch()
    asked = torch.zeros(2, 1, 3, 4, 4)
    asked[:, :, 0] = 1
    clean = replace(batch, condition=torch.cat([asked, batch.latents], dim=1))
    weights = task._asked(clean)
    assert not weights[:, :, 0].any()
    assert weights[:, :, 1:].all()


@pytest.mark.parametrize("row", ["wan", "ltx", "mochi", "cogvideox"])
def test_one_step_of_a_stage_moves_what_it_names_and_nothing_else(row, tmp_path):
    backbone, transformer, batch = tiny_row(row)
    before = {name: p.detach().clone() for name, p in transformer.named_parameters()}
    null = (torch.zeros_like(batch.prompt_embeds[0]), torch.zeros_like(batch.prompt_mask[0]))
    task = FlowTask(
        transformer, backbone, null_prompt=null, held_out=[], flow=FlowSettings(), info=None, seed=0,
        trainable=(f"{backbone.embedder}.*", f"{backbone.head}.*"),
    )  # fmt: skip
    data = Batches()
    data.batch = lambda step, part, num_parts: batch
    assert fit(task, data, settings(steps=1), tmp_path)
    ends = (f"{backbone.embedder}.", f"{backbone.head}.")
    for name, parameter in transformer.named_parameters():
        assert torch.equal(parameter, before[name]) != name.startswith(ends), name


def test_a_stopped_run_goes_on_to_the_same_weights_and_its_checkpoint_holds_no_frozen_weight(tmp_path):
    def run(folder, stops):
        for stop in stops:
            transformer = tiny_transformer("wan")
            patterns = add_lora(transformer, WAN, LoraSettings(rank=2, alpha=4))
            task = make_task(transformer, trainable=patterns)
            done = fit(task, Batches(), settings(steps=4, checkpoint_every=1), folder, stop_at=stop)
        assert done
        return Checkpoint(find_checkpoints(folder / "checkpoints")[-1])

    straight, resumed = run(tmp_path / "a", [None]), run(tmp_path / "b", [2, None])
    names = [name for name in straight.shapes if name.startswith(("weights/", "ema/", "optimizer/"))]
    assert all(torch.equal(straight.tensor(name), resumed.tensor(name)) for name in names)
    weights = [name for name in names if name.startswith("weights/")]
    assert weights
    assert not any("base_layer" in name for name in weights)
    assert (tmp_path / "a" / "model" / "adapter.json").is_file()


def test_full_training_exports_a_transformer_with_what_it_must_be_told(tmp_path):
    task = make_task()
    assert fit(task, Batches(), settings(), tmp_path)
    loaded, info = load_transformer(tmp_path / "model")
    assert info == INFO
    with_mean = Checkpoint(find_checkpoints(tmp_path / "checkpoints")[-1])
    name = "blocks.0.attn1.to_q.weight"
    assert torch.equal(dict(loaded.named_parameters())[name], with_mean.tensor(f"ema/transformer/{name}"))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    held_out = next(line for line in lines if "held_out/loss" in line)
    bands = [value for key, value in held_out.items() if key.startswith("held_out/loss_at")]
    assert held_out["held_out/loss"] == pytest.approx(sum(bands) / 4, rel=1e-6)


def test_a_pattern_that_fits_nothing_is_refused():
    with pytest.raises(UserError, match=r"no parameter is named like 'nothing\.\*'"):
        make_task(trainable=("nothing.*",))


def test_a_range_of_noise_must_rise():
    with pytest.raises(ValidationError, match="two rising numbers from 0 to 1"):
        FlowSettings(sigma_range=(0.5, 0.5))
