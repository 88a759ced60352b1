"""Plans are put together from what the real classes take, fastest first, and the fastest that fits is chosen."""

from itertools import pairwise

import pytest
import torch
from tiny_pipeline import tiny_networks
from torch import nn

from dcvideogen.adaptation.device_speed import conv_speed
from dcvideogen.errors import UserError
from dcvideogen.pipelines.memory_autoencoder import DecodePlan, decode_need, encode_need, outline_model
from dcvideogen.pipelines.memory_counts import Counts, Rates, measure_rates
from dcvideogen.pipelines.memory_models import Asked, bytes_of
from dcvideogen.pipelines.memory_outline import Account, Outline
from dcvideogen.pipelines.memory_plan import (
    GROUPS,
    OFFLOAD,
    RESIDENT,
    choose_plan,
    make_plan,
    plans_for,
    told,
    told_all,
)
from dcvideogen.pipelines.memory_published import published_networks
from dcvideogen.pipelines.memory_trace import peak_bytes

RATES = Rates(1e12, 1e12, "a guess")
SMALL = Asked(height=96, width=64, num_frames=16, steps=4, text_tokens=32)


@pytest.fixture(scope="module")
def networks():
    return tiny_networks()


@pytest.fixture(scope="module")
def large():
    """The largest published model and video, planned for a GPU from names alone."""
    networks = published_networks("wan2.1-t2v-14b")
    return plans_for(networks, Asked(2160, 3840, 80), on_cpu=False, rates=Rates(4e14, 3e14, "a guess"))


@pytest.mark.parametrize("plan", [DecodePlan(), DecodePlan(64), DecodePlan(16)], ids=str)
def test_outlines_count_what_tensors_on_the_meta_device_take(tiny, plan):
    model = outline_model(tiny)

    def run():
        latents = torch.empty(1, 16, 4, 3, 2, device="meta")
        for _ in model.decode_stream([latents], rows_per_step=plan.rows_per_step, num_frames=16):
            pass

    counted = decode_need(model, plan, 96, 64, 16, on_cpu=False)
    assert counted.device == pytest.approx(peak_bytes([model], run), rel=0.01)
    assert counted.host == 0


@pytest.mark.parametrize("plan", [DecodePlan(), DecodePlan(64)], ids=str)
def test_encoding_is_counted_in_the_same_way(tiny, plan):
    model = outline_model(tiny)

    def run():
        model.encode(torch.empty(1, 3, 16, 96, 64, device="meta"), rows_per_step=plan.rows_per_step)

    counted = encode_need(model, plan, 96, 64, 16, on_cpu=False)
    assert counted.device == pytest.approx(peak_bytes([model], run), rel=0.01)


def test_moving_the_frames_between_chunks_moves_their_memory(tiny):
    model = outline_model(tiny)
    here, moved = (decode_need(model, DecodePlan(16, host), 512, 96, 16, on_cpu=False) for host in (False, True))
    assert moved.host > 0
    assert moved.device < here.device <= moved.device + moved.host


def test_on_a_cpu_a_buffer_counts_when_it_is_written(tiny):
    model = outline_model(tiny)
    lazy, full = (decode_need(model, DecodePlan(16), 512, 96, 8, on_cpu=on_cpu).device for on_cpu in (True, False))
    assert lazy < full


def test_an_operation_that_outlines_do_not_know_is_an_error():
    x = Outline((1, 2), torch.float32, (Account(), Account()))
    with pytest.raises(NotImplementedError, match=r"what .* takes is not known"):
        torch.softmax(x, dim=0)


def test_a_trace_counts_what_lives_at_once():
    layer = nn.Linear(10, 20, device="meta")

    def run():
        x = torch.empty(3, 10, device="meta")  # 120 bytes
        y = layer(x)  # 240 more
        del x
        return torch.relu(y)  # y and this: 480

    assert peak_bytes([layer], run) == 480


def test_two_blocks_of_a_transformer_stand_for_all():
    two, five = (tiny_networks(num_layers=n) for n in (2, 5))
    assert two.transformer_activations(SMALL, 2) == five.transformer_activations(SMALL, 2)
    assert five.weights["transformer 1"] - two.weights["transformer 1"] == 3 * five.block_bytes
    assert five.blocks_bytes == 5 * five.block_bytes


def test_activations_grow_with_the_batch_and_the_video(networks):
    one, two = (networks.transformer_activations(SMALL, batch) for batch in (1, 2))
    assert 1.5 * one < two <= 2 * one
    assert networks.transformer_activations(Asked(192, 64, 16, text_tokens=32), 1) > one


def test_sizes_of_the_published_parts_are_the_published_ones():
    networks = published_networks("wan2.2-i2v-a14b", "f32t4c32")
    assert sum(p.numel() for p in networks.text_encoder.parameters()) / 1e9 == pytest.approx(5.68, abs=0.005)
    assert networks.text_encoder.dtype == networks.autoencoder.dtype == torch.bfloat16
    assert 2 * 14e9 < networks.weights["transformer 1"] < 2 * 18e9
    assert bytes_of(networks.autoencoder) / 2 / 1e6 == pytest.approx(917 + 1222, abs=1)
    assert networks.image_encoder is None  # as Wan 2.2 has none
    first, second = networks.transformers
    assert first.config.in_channels == second.config.in_channels == 68
    assert first.scale_shift_table.dtype == torch.float32  # as from_pretrained keeps it


def test_unknown_published_models_are_refused():
    with pytest.raises(UserError, match=r"no published model 'wan3' .* known: wan2.1-t2v-1.3b"):
        published_networks("wan3")
    with pytest.raises(UserError, match="unknown preset 'f1'"):
        published_networks("wan2.1-t2v-14b", "f1")


def test_on_a_cpu_plans_differ_in_guidance_and_decoding_alone(networks):
    plans = plans_for(networks, Asked(512, 512, 16, 4, text_tokens=32), on_cpu=True, rates=RATES)
    assert {plan.placement for plan in plans} == {RESIDENT}
    assert not any(plan.decode.offload_state for plan in plans)
    assert all(plan.host == plan.peak for plan in plans)


def test_a_gpus_plans_go_from_fast_to_small(large):
    assert {plan.placement for plan in large} == {RESIDENT, OFFLOAD, GROUPS}
    assert (large[0].placement, large[0].guidance_as_batch, large[0].decode) == (RESIDENT, True, DecodePlan())
    for one, other in pairwise(large):
        assert one.seconds <= other.seconds
        assert one.peak > other.peak
    assert large[-1].peak < 0.3 * large[0].peak


def test_the_smallest_plan_is_bounded_by_one_pass_over_all_tokens(large):
    """163 200 of them, 14B, 4K: 17 GiB."""
    assert large[-1].placement == GROUPS
    assert not large[-1].guidance_as_batch
    assert 15 < large[-1].peak / 2**30 < 25


def test_the_fastest_plan_that_fits_is_chosen(large):
    assert choose_plan(large, large[0].peak) is large[0]
    assert choose_plan(large, large[0].peak - 1) is large[1]
    assert choose_plan(large, large[-1].peak) is large[-1]


def test_when_none_fits_the_user_hears_what_is_needed(large):
    with pytest.raises(UserError, match=r"1 GiB of memory may be taken and .* GiB are needed at least, for .*--memory"):
        choose_plan(large, 2**30)


def test_without_guidance_there_is_one_pass(networks):
    plain = Asked(96, 64, 16, steps=4, guided=False, text_tokens=32)
    guided = make_plan(Counts(networks, SMALL, RATES, on_cpu=True), RESIDENT, True, DecodePlan())
    single = make_plan(Counts(networks, plain, RATES, on_cpu=True), RESIDENT, True, DecodePlan())
    assert single.phases[1].seconds == pytest.approx(guided.phases[1].seconds / 2)
    assert single.phases[1].device < guided.phases[1].device


def test_a_plan_is_told_with_memory_host_memory_and_time(large):
    lines = list(told(large[-1], RATES))
    assert [line.split(":")[0] for line in lines] == ["plan", "memory", "host memory", "time"]
    assert "estimate without loading and writing, from a guess" in lines[-1]
    table = list(told_all(large, large[1]))
    assert len(table) == len(large)
    assert [line[0] for line in table[:3]] == [" ", "*", " "]


def test_rates_are_measured_on_the_device(networks):
    rates = measure_rates(networks, torch.device("cpu"))
    assert min(rates.matmul, rates.conv) > 0
    assert "one linear layer in fp32" in rates.found
    assert "one conv in fp32" in rates.found
    assert conv_speed(8, "fp32", torch.device("cpu"))[0] > 0
