"""Time is products, operators to start, and bytes that others move: counted exactly, and measured where it computes."""

from copy import copy
from dataclasses import replace

import pytest
import torch
from tiny_pipeline import tiny_networks
from torch import nn

from dcvideogen.pipelines.memory_autoencoder import DecodePlan, decode_work, encode_work
from dcvideogen.pipelines.memory_counts import Counts, Rates, measure_rates
from dcvideogen.pipelines.memory_models import Asked
from dcvideogen.pipelines.memory_plan import RESIDENT, make_plan
from dcvideogen.pipelines.memory_published import published_networks
from dcvideogen.pipelines.memory_work import Work, count_work

RATES = Rates(1e12, 1e12, "a guess")
SMALL = Asked(height=96, width=64, num_frames=16, steps=4, text_tokens=32)


@pytest.fixture(scope="module")
def networks():
    return tiny_networks()


@pytest.fixture(scope="module")
def counts(networks):
    return Counts(networks, SMALL, RATES, on_cpu=True)


def seconds(counts, rates, *, as_batch=True):
    counts = copy(counts)
    counts.rates = rates
    plan = make_plan(counts, RESIDENT, as_batch, DecodePlan())
    return {phase.name: phase.seconds for phase in plan.phases}


def test_operators_and_the_bytes_that_they_move_are_counted_but_not_views_and_products():
    layer = nn.Linear(10, 20, device="meta")

    def run():
        y = layer(torch.empty(3, 10, device="meta"))  # empty: 120 bytes; a transposed weight, and a product
        return torch.relu(y.view(60)) * 2  # a view; 240 read and written by each

    assert count_work([], run, 5.0) == Work(5.0, launches=6, moved=120 + 4 * 240)


def test_two_blocks_of_a_transformer_stand_for_all_of_them(networks):
    five = tiny_networks(num_layers=5)
    by_blocks, one = five.transformer_work(SMALL), five.transformers[0]
    run = count_work([], lambda: five._forward(one, SMALL, 1), by_blocks.flops)
    assert by_blocks == run
    assert by_blocks.launches > networks.transformer_work(SMALL).launches


def test_a_batch_takes_as_many_operators_on_more_numbers(networks):
    one = networks.transformer_work(SMALL)
    two = count_work([], lambda: networks._forward(networks.transformers[0], SMALL, 2), 2 * one.flops)
    assert (two.flops, two.launches) == (one.batch(2).flops, one.batch(2).launches)
    assert one.moved < two.moved <= one.batch(2).moved  # what no video has of its own counts once


@pytest.mark.parametrize("frames", [2, 4, 8])
def test_a_video_of_many_chunks_is_counted_from_two(networks, frames):
    model = networks.autoencoder
    for work, run in (
        (decode_work, lambda: model.decode(torch.empty(1, 16, frames, 3, 2, device="meta"))),
        (encode_work, lambda: model.encode(torch.empty(1, 3, 4 * frames, 96, 64, device="meta"))),
    ):
        told, run_whole = work(model, (frames, 3, 2)), count_work([], run, 0.0)
        assert told.launches == pytest.approx(run_whole.launches, rel=0.15)
        assert told.moved == pytest.approx(run_whole.moved, rel=0.05)


def test_seconds_grow_by_operators_times_what_one_takes_to_start(networks, counts):
    launch = 1e-5
    before, after = seconds(counts, RATES), seconds(counts, replace(RATES, launch=launch))
    operators = networks.transformer_work(SMALL).launches
    assert after["denoising"] - before["denoising"] == pytest.approx(SMALL.steps * operators * launch)
    assert after["denoising"] > 10 * before["denoising"]  # a tiny model's time
    two_passes = seconds(counts, replace(RATES, launch=launch), as_batch=False)
    assert two_passes["denoising"] > 1.9 * after["denoising"]
    decoded = decode_work(networks.autoencoder, networks.latent_shape(SMALL)).launches
    assert after["decoding"] - before["decoding"] == pytest.approx(decoded * launch)


def test_seconds_grow_by_the_bytes_that_are_moved(networks, counts):
    before, after = seconds(counts, RATES), seconds(counts, replace(RATES, moved=1e9))
    moved = 2 * networks.transformer_work(SMALL).moved  # with guidance
    assert after["denoising"] - before["denoising"] == pytest.approx(SMALL.steps * moved / 1e9)


def test_a_gpu_computes_while_the_host_starts_operators():
    rates, work = Rates(1e12, 1e12, "a guess", launch=1e-5, moved=1e12), Work(3e12, 100_000, 2e12)
    assert rates.seconds(work, rates.matmul, on_cpu=False) == pytest.approx(3 + 2)
    assert rates.seconds(work, rates.matmul, on_cpu=True) == pytest.approx(3 + 2 + 1)
    assert rates.seconds(replace(work, launches=700_000), rates.matmul, on_cpu=False) == pytest.approx(7)


def test_a_large_models_time_is_mostly_products():
    work = published_networks("wan2.1-t2v-1.3b").transformer_work(Asked(480, 832, 80)).batch(2)
    products, rest = work.flops / 4e14, work.moved / 3e12
    assert 0.1 * products < rest < products
    assert work.launches * 1e-5 < products  # a GPU waits for none


def test_what_an_operator_takes_is_measured_on_the_device(networks):
    rates = measure_rates(networks, torch.device("cpu"))
    assert 1e-7 < rates.launch < 1e-2
    assert rates.moved > 1e6
    assert "us to start an operator" in rates.found
