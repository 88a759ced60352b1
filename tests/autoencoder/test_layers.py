import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from dcvideogen.autoencoder.layers import (
    ChunkCausalConv3d,
    Downsample,
    ResBlock,
    RMSNorm,
    Upsample,
)
from dcvideogen.autoencoder.shuffle import averaging_shortcut, pixel_shuffle_3d, pixel_unshuffle_3d
from dcvideogen.autoencoder.state import StreamState


def run_chunks(layer, x, length):
    state = StreamState()
    return torch.cat([layer(chunk, state, True) for chunk in x.split(length, dim=2)], dim=2)


@settings(deadline=None)
@given(st.sampled_from([(2, 1), (1, 4), (2, 2), (1, 1)]), st.booleans())
def test_shuffle_inverts_unshuffle_and_keeps_the_layout(factors, channels_last):
    s, t = factors
    x = torch.rand(2, 3, 2 * t, 3 * s, 2 * s)
    if channels_last:
        x = x.to(memory_format=torch.channels_last_3d)
    small = pixel_unshuffle_3d(x, s, t)
    assert small.shape == (2, 3 * s * s * t, 2, 3, 2)
    back = pixel_shuffle_3d(small, s, t)
    assert torch.equal(back, x)
    assert back.is_contiguous(memory_format=torch.channels_last_3d if channels_last else torch.contiguous_format)


def test_unshuffle_orders_channels_by_channel_then_time_then_row_then_column():
    x = torch.arange(2 * 2 * 2 * 2.0).view(1, 2, 2, 2, 2)
    assert torch.equal(pixel_unshuffle_3d(x, 2, 2).flatten(), torch.arange(16.0))
    assert torch.equal(pixel_unshuffle_3d(x[:, :1, :1], 2, 1).flatten(), F.pixel_unshuffle(x[:, 0, :1], 2).flatten())


def test_a_chunk_sees_the_last_frame_before_it_on_its_left_and_zeros_on_its_right():
    conv = ChunkCausalConv3d(3, 4, "chunk_causal")
    x = torch.rand(1, 3, 12, 5, 6)
    out = run_chunks(conv, x, 4)
    for start in (0, 4, 8):
        left = torch.zeros(1, 3, 1, 5, 6) if start == 0 else x[:, :, start - 1 : start]
        chunk = torch.cat([left, x[:, :, start : start + 4], torch.zeros(1, 3, 1, 5, 6)], dim=2)
        expected = F.conv3d(chunk, conv.weight, conv.bias, padding=(0, 1, 1))
        torch.testing.assert_close(out[:, :, start : start + 4], expected)


def test_a_causal_conv_sees_two_frames_of_the_past_and_the_chunk_length_does_not_matter():
    conv = ChunkCausalConv3d(3, 4, "causal")
    x = torch.rand(1, 3, 9, 5, 6)
    expected = F.conv3d(F.pad(x, (0, 0, 0, 0, 2, 0)), conv.weight, conv.bias, padding=(0, 1, 1))
    for length in (1, 2, 4, 9):
        torch.testing.assert_close(run_chunks(conv, x, length), expected)


def test_a_non_causal_conv_pads_the_clip_with_zeros_on_both_sides():
    conv = ChunkCausalConv3d(3, 4, "non_causal")
    x = torch.rand(1, 3, 5, 5, 6)
    torch.testing.assert_close(conv(x, StreamState(), True), F.conv3d(x, conv.weight, conv.bias, padding=1))


@pytest.mark.parametrize("mode", ["chunk_causal", "causal", "non_causal"])
@settings(deadline=None, max_examples=40)
@given(cuts=st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_rows_in_any_pieces_give_what_the_whole_picture_gives(mode, cuts):
    torch.manual_seed(0)
    layers = [
        ChunkCausalConv3d(3, 8, mode),
        ResBlock(8, mode),
        Downsample(8, 8, 2, 1, mode),
        Upsample(8, 8, 2, 1, mode),
    ]
    torch.nn.init.ones_(layers[1].norm.weight)
    height = 8
    clip = torch.rand(1, 3, 6, height, 5)[..., :4]
    whole, rows = StreamState(), StreamState()
    with torch.no_grad():
        for chunk in [clip] if mode == "non_causal" else clip.split(2, dim=2):
            expected = chunk
            for layer in layers:
                expected = layer(expected, whole, True)
            done, top = [], 0
            for i, cut in enumerate([*cuts, height]):
                last = i == len(cuts)
                piece = chunk[..., top:, :] if last else chunk[..., top : min(top + cut, height - 1), :]
                top += piece.shape[-2]
                for layer in layers:
                    piece = layer(piece, rows, last)
                done.append(piece)
            torch.testing.assert_close(torch.cat(done, dim=-2), expected)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("in_channels", "out_channels", "s", "t"),
    [(4, 8, 2, 1), (4, 4, 2, 1), (8, 4, 2, 1), (4, 16, 2, 1), (4, 4, 1, 4), (8, 4, 1, 4), (4, 8, 2, 2), (6, 27, 3, 1)],
)
def test_the_averaging_shortcut_is_unshuffle_and_mean_for_every_group_size(
    in_channels, out_channels, s, t, channels_last
):
    x = torch.rand(2, in_channels, 2 * t, 3 * s, 2 * s, requires_grad=True)
    if channels_last:
        x = x.to(memory_format=torch.channels_last_3d)
    expected = pixel_unshuffle_3d(x, s, t).unflatten(1, (out_channels, -1)).mean(dim=2)
    torch.testing.assert_close(averaging_shortcut(x, s, t, out_channels), expected)
    with torch.no_grad():
        torch.testing.assert_close(averaging_shortcut(x, s, t, out_channels), expected)


def test_the_norm_is_the_root_mean_square_norm_with_weight_and_bias_with_or_without_gradient():
    norm = RMSNorm(6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 6, 3, 4, 5)
    expected = F.rms_norm(x.movedim(1, -1), (6,), norm.weight, eps=1e-5).movedim(-1, 1) + norm.bias.view(-1, 1, 1, 1)
    torch.testing.assert_close(norm(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(norm(x.clone()), expected)


def test_a_fresh_residual_block_is_the_identity():
    x = torch.rand(1, 4, 3, 5, 6)
    assert torch.equal(ResBlock(4, "chunk_causal")(x, StreamState(), True), x)


def test_shortcuts_average_on_the_way_down_and_repeat_on_the_way_up():
    down, up = Downsample(4, 8, 2, 1, "chunk_causal"), Upsample(8, 4, 2, 1, "chunk_causal")
    for step in (down, up):
        torch.nn.init.zeros_(step.conv.weight)
        torch.nn.init.zeros_(step.conv.bias)
    x = torch.rand(1, 4, 2, 6, 6)
    y = down(x, StreamState(), True)
    expected = pixel_unshuffle_3d(x, 2, 1).view(1, 8, 2, 2, 3, 3).mean(dim=2)
    torch.testing.assert_close(y, expected)
    expected = pixel_shuffle_3d(y.repeat_interleave(2, dim=1), 2, 1)
    torch.testing.assert_close(up(y, StreamState(), True), expected)
