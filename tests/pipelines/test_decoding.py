"""Decoding gives the frames of one plain decode whatever the plan, and steps down when memory ends."""

from itertools import pairwise

import pytest
import torch

from dcvideogen.errors import UserError
from dcvideogen.pipelines.decoding import decode_pieces, decode_plans, plans_from
from dcvideogen.pipelines.memory_autoencoder import DecodePlan, decode_need, outline_model

WHOLE, STRIPS, FINE = DecodePlan(), DecodePlan(32), DecodePlan(16)
HEIGHT, WIDTH, FRAMES = 90, 61, 21  # of 3 x 96 x 64: the last chunk and all sides are cropped


@pytest.fixture
def latents():
    return torch.randn(1, 16, 6, 3, 2, generator=torch.Generator().manual_seed(3))


def pieces_of(model, latents, plans, told=print):
    return list(decode_pieces(model, latents, HEIGHT, WIDTH, FRAMES, plans, told))


def plain(model, latents):
    with torch.inference_mode():
        return model.decode(latents, height=HEIGHT, width=WIDTH, num_frames=FRAMES)


def fail_when(model, condition, error=torch.OutOfMemoryError):
    """Makes the last layer, which runs once per piece, run out of memory when condition(calls so far, input) holds."""
    calls = []

    def check(_module, inputs):
        calls.append(inputs[0].shape)
        if condition(len(calls), inputs[0]):
            raise error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    model.decoder.layers[-1].register_forward_pre_hook(check)
    return calls


def test_chunks_come_out_one_by_one_and_join_to_a_plain_decode(tiny, latents):
    told = []
    pieces = pieces_of(tiny, latents, [WHOLE], told.append)
    assert [piece.shape[2] for piece in pieces] == [8, 8, 5]
    assert torch.equal(torch.cat(pieces, dim=2), plain(tiny, latents))
    assert told == []


@pytest.mark.parametrize("plan", [STRIPS, FINE, DecodePlan(16, offload_state=True)], ids=str)
def test_strips_give_the_same_frames(tiny, latents, plan):
    video = torch.cat(pieces_of(tiny, latents, [plan]), dim=2)
    assert (video - plain(tiny, latents)).abs().max() < 1e-5


def test_a_model_that_is_not_causal_decodes_in_one_piece(make_tiny, latents):
    model = make_tiny(temporal_mode="non_causal")
    (video,) = pieces_of(model, latents, [WHOLE])
    assert torch.equal(video, plain(model, latents))


def test_a_clip_of_one_chunk_keeps_no_frames_for_another(tiny, latents):
    (video,) = decode_pieces(tiny, latents[:, :, :2], 96, 64, 7, [WHOLE])
    with torch.inference_mode():
        assert torch.equal(video, tiny.decode(latents[:, :, :2], num_frames=7))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_out_of_memory_steps_down_and_says_so(tiny, latents, error):
    expected = plain(tiny, latents)
    fail_when(tiny, lambda _calls, x: x.shape[-2] > 8, error)  # rows at half size: strips of 16 rows pass
    told = []
    video = torch.cat(pieces_of(tiny, latents, [WHOLE, STRIPS, FINE], told.append), dim=2)
    assert (video - expected).abs().max() < 1e-5
    assert told == [
        "out of memory when decoding by whole chunks: decoding by strips of 32 rows from here on",
        "out of memory when decoding by strips of 32 rows: decoding by strips of 16 rows from here on",
    ]


def test_frames_that_were_given_out_do_not_come_twice(tiny, latents):
    expected = plain(tiny, latents)
    fail_when(tiny, lambda calls, x: calls == 3 and x.shape[-2] > 8)  # whole chunks: in the third
    told = []
    pieces = pieces_of(tiny, latents, [WHOLE, FINE], told.append)
    assert [piece.shape[2] for piece in pieces] == [8, 8, 5]
    assert len(told) == 1
    assert (torch.cat(pieces, dim=2) - expected).abs().max() < 1e-5


def test_a_failed_try_is_freed_before_the_next(tiny, latents):
    """What the failed layer was given is gone when the next plan begins."""
    import weakref

    held = []

    def check(_module, inputs):
        if not held:
            held.append(weakref.ref(inputs[0]))
            raise torch.OutOfMemoryError("no memory")
        assert held[0]() is None

    tiny.decoder.layers[-1].register_forward_pre_hook(check)
    assert sum(piece.shape[2] for piece in pieces_of(tiny, latents, [WHOLE, FINE], [].append)) == FRAMES


def test_without_a_smaller_plan_the_user_hears_what_would_have_been_needed(tiny, latents):
    fail_when(tiny, lambda _calls, _x: True)
    with pytest.raises(UserError, match=r"even strips of 16 rows needs .* GiB .* the latents are saved"):
        pieces_of(tiny, latents, [WHOLE, FINE], [].append)


def test_other_errors_are_not_taken_for_a_lack_of_memory(tiny, latents):
    def fail(_module, _inputs):
        raise RuntimeError("shapes do not fit")

    tiny.decoder.layers[-1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        pieces_of(tiny, latents, [WHOLE, FINE])


def test_more_frames_than_the_latents_hold_are_refused(tiny, latents):
    with pytest.raises(UserError, match="num_frames is 25"):
        list(decode_pieces(tiny, latents, HEIGHT, WIDTH, 25, [WHOLE]))


def test_no_plan_is_refused(tiny, latents):
    with pytest.raises(UserError, match="no plan to decode by came"):
        pieces_of(tiny, latents, [])


def test_each_plan_needs_clearly_less_than_the_one_before(tiny):
    plans = decode_plans(tiny, 512, 512)
    model = outline_model(tiny)
    needs = [decode_need(model, plan, 512, 512, 16, on_cpu=True).device for plan in plans]
    assert plans[0] == WHOLE
    assert len(plans) > 1
    assert all(after <= 0.9 * before for before, after in pairwise(needs))
    assert not any(plan.offload_state for plan in plans)  # the tiny model is on the CPU


def test_a_later_plan_can_be_the_first_one():
    assert plans_from([WHOLE, STRIPS, FINE], STRIPS) == (STRIPS, FINE)
    assert plans_from([WHOLE, FINE], STRIPS) == (STRIPS,)


def test_small_pictures_have_one_plan(tiny):
    assert decode_plans(tiny, 16, 16) == (WHOLE,)


def test_strips_need_memory_in_a_straight_line_with_the_height(tiny, monkeypatch):
    """So two small heights tell a large one, 10 % too much at the most."""
    model = outline_model(tiny)
    for plan in (DecodePlan(64), DecodePlan(16), DecodePlan(16, offload_state=True)):
        told = decode_need(model, plan, 800, 64, 16, on_cpu=False).device
        with monkeypatch.context() as patch:
            patch.setattr("dcvideogen.pipelines.memory_autoencoder.STRAIGHT", (50, 54))
            counted = decode_need(model, plan, 800, 64, 16, on_cpu=False).device
        assert 0.98 * counted < told < 1.1 * counted
