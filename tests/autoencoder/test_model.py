import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dcvideogen
from dcvideogen.autoencoder.presets import PRESETS, make_autoencoder
from dcvideogen.errors import UserError

pytestmark = pytest.mark.usefixtures("no_grad")
few = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def no_grad():
    with torch.no_grad():
        yield


def cut(x, lengths):
    """Pieces of x along time with these lengths, the rest in the last one."""
    pieces, start = [], 0
    for length in lengths:
        pieces.append(x[:, :, start : start + length])
        start += length
    return [*pieces, x[:, :, start:]]


@pytest.mark.parametrize(
    ("name", "encoder", "decoder"),
    # Millions of parameters as published (facts of the released checkpoints); c32 and f64 are the stated ones.
    [("f32t4c32", 917, 1222), ("f64t4c128", 1153, 1564)],
)
def test_presets_have_the_published_parameter_counts(name, encoder, decoder):
    with torch.device("meta"):
        model = make_autoencoder(name)
    assert round(sum(p.numel() for p in model.encoder.parameters()) / 1e6) == encoder
    assert round(sum(p.numel() for p in model.decoder.parameters()) / 1e6) == decoder


def test_more_latent_channels_only_widen_the_two_convs_at_the_latents():
    def count(name):
        with torch.device("meta"):
            return sum(p.numel() for p in make_autoencoder(name).parameters())

    per_channel = 1024 * 27 * 2 + 1  # encoder's last conv with bias, decoder's first conv
    for channels in (64, 128, 256):
        assert count(f"f32t4c{channels}") - count("f32t4c32") == (channels - 32) * per_channel


@pytest.mark.parametrize("name", PRESETS)
def test_geometry_is_the_real_output_shape_at_full_size(name):
    with torch.device("meta"):
        model = make_autoencoder(name)
        video = torch.empty(1, 3, 43, 720, 1280)
        latents = model.encode(video)
        assert latents.shape == (1, model.config.latent_channels, *model.geometry.latent_shape(43, 720, 1280))
        assert model.decode(latents, height=720, width=1280, num_frames=43).shape == video.shape


def test_compression_ratios_follow_the_naming_rule():
    with torch.device("meta"):
        assert make_autoencoder("f32t4c32").compression_ratio == 384
        assert make_autoencoder("f32t4c128").compression_ratio == 96
        assert make_autoencoder("f64t4c128").compression_ratio == 384


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 64, 96), (3, 31, 33), (8, 32, 32), (13, 40, 100), (21, 65, 32)])
@pytest.mark.parametrize("mode", ["chunk_causal", "causal", "non_causal"])
def test_any_size_and_length_comes_back_as_it_went_in(make_tiny, random_video, mode, shape):
    model, video = make_tiny(temporal_mode=mode), random_video(*shape)
    assert model.encode(video).shape[2:] == model.geometry.latent_shape(*shape)
    assert model(video).shape == video.shape


@few
@given(total=st.integers(1, 30), lengths=st.lists(st.integers(0, 11), max_size=5))
@pytest.mark.parametrize("mode", ["chunk_causal", "causal"])
@pytest.mark.parametrize("partial", ["shorter", "fill"])
def test_streamed_equals_whole_for_every_length_and_cut(make_tiny, random_video, mode, partial, total, lengths):
    model, video = make_tiny(temporal_mode=mode, partial_chunk=partial), random_video(total, 40, 33)
    latents = model.encode(video)
    torch.testing.assert_close(torch.cat(list(model.encode_stream(cut(video, lengths))), dim=2), latents)
    size = {"height": 40, "width": 33, "num_frames": total}
    streamed = torch.cat(list(model.decode_stream(cut(latents, lengths), **size)), dim=2)
    torch.testing.assert_close(streamed, model.decode(latents, **size))


def test_a_stream_gives_a_chunk_as_soon_as_it_is_complete(tiny, random_video):
    given_out = []

    def frames():
        for frame in random_video(20, 32, 32).split(1, dim=2):
            given_out.append(frame)
            yield frame

    stream = tiny.encode_stream(frames())
    assert next(stream).shape[2] == 2
    assert len(given_out) == 8
    assert [piece.shape[2] for piece in stream] == [2, 1]


def test_interleaved_streams_do_not_disturb_each_other(tiny, random_video):
    videos = [random_video(24, 32, 32, seed=1), random_video(24, 64, 32, seed=2)]
    streams = [tiny.encode_stream([video]) for video in videos]
    pieces = list(zip(*streams, strict=True))
    for video, parts in zip(videos, zip(*pieces, strict=True), strict=True):
        assert torch.equal(torch.cat(parts, dim=2), tiny.encode(video))


@pytest.mark.parametrize("mode", ["chunk_causal", "causal", "non_causal"])
@pytest.mark.parametrize("rows", [1, 5, 16, 32, 48, 1000])
def test_rows_per_step_does_not_change_the_result(make_tiny, random_video, mode, rows):
    model, video = make_tiny(temporal_mode=mode), random_video(11, 97, 34, batch=2)
    latents = model.encode(video)
    torch.testing.assert_close(model.encode(video, rows_per_step=rows), latents, atol=1e-5, rtol=1e-5)
    expected = model.decode(latents)
    torch.testing.assert_close(model.decode(latents, rows_per_step=rows), expected, atol=1e-5, rtol=1e-5)


def test_gradients_do_not_change_the_result_and_reach_every_parameter(make_tiny, random_video):
    model, video = make_tiny(), random_video(11, 40, 33)
    expected = model(video)
    with torch.enable_grad():
        out = model(video)
        out.square().mean().backward()
    torch.testing.assert_close(out.detach(), expected, atol=1e-5, rtol=1e-5)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_inference_leaves_its_input_untouched(tiny, random_video):
    video = random_video(9, 64, 64)
    before = video.clone()
    latents = tiny.encode(video, rows_per_step=8)
    assert torch.equal(video, before)
    before = latents.clone()
    tiny.decode(latents)
    assert torch.equal(latents, before)


def test_later_chunks_never_change_earlier_latents_or_frames(tiny, random_video):
    video = random_video(24, 32, 32)
    other = torch.cat([video[:, :, :16], random_video(8, 32, 32, seed=9)], dim=2)
    one, two = tiny.encode(video), tiny.encode(other)
    assert torch.equal(one[:, :, :4], two[:, :, :4])
    assert (one[:, :, 4:] - two[:, :, 4:]).abs().min() > 0
    assert torch.equal(tiny.decode(one)[:, :, :16], tiny.decode(two)[:, :, :16])


def test_the_last_frame_of_a_chunk_changes_its_first_latent_and_the_next_chunk(make_tiny, random_video):
    # Three latent frames per chunk, as many as the deepest convs reach over.
    model = make_tiny(chunk_frames=12)
    video = random_video(24, 32, 32)
    other = video.clone()
    other[:, :, 11] = 0
    changed = (model.encode(video) - model.encode(other)).abs().amax(dim=(0, 1, 3, 4))
    assert changed[0] > 0
    assert changed[3] > 0


def test_causal_latents_never_depend_on_later_frames(make_tiny, random_video):
    model, video = make_tiny(temporal_mode="causal"), random_video(16, 32, 32)
    for k in range(4):
        changed = torch.cat([video[:, :, : 4 * k + 4], torch.zeros(1, 3, 12 - 4 * k, 32, 32)], dim=2)
        assert torch.equal(model.encode(changed)[:, :, : k + 1], model.encode(video)[:, :, : k + 1])


def test_causal_results_do_not_depend_on_the_chunk_length(make_tiny, random_video):
    video = random_video(20, 32, 32)
    results = [make_tiny(temporal_mode="causal", chunk_frames=frames).encode(video) for frames in (4, 8, 40)]
    for result in results[1:]:
        torch.testing.assert_close(result, results[0])


def test_one_chunk_of_a_chunk_causal_model_is_the_non_causal_network(make_tiny, random_video):
    video = random_video(16, 32, 32)
    non_causal = make_tiny(temporal_mode="non_causal").encode(video)
    assert torch.equal(make_tiny(chunk_frames=16).encode(video), non_causal)
    assert not torch.equal(make_tiny(chunk_frames=8).encode(video), non_causal)


def test_a_non_causal_model_refuses_to_stream(make_tiny, random_video):
    model = make_tiny(temporal_mode="non_causal")
    with pytest.raises(UserError, match="non_causal autoencoder cannot stream"):
        model.encode_stream([random_video(8, 32, 32)])
    with pytest.raises(UserError, match="non_causal autoencoder cannot stream"):
        model.decode_stream([torch.zeros(1, 16, 2, 1, 1)])


def test_a_short_last_chunk_sees_the_past(make_tiny, random_video):
    model, video = make_tiny(), random_video(12, 32, 32)
    alone = model.encode(video[:, :, 8:])
    assert not torch.allclose(model.encode(video)[:, :, 2:], alone)


def test_fill_repeats_the_last_frame_up_to_a_full_chunk_and_crops(make_tiny, random_video):
    shorter, fill = make_tiny(), make_tiny(partial_chunk="fill")
    video = random_video(10, 32, 32)
    full = torch.cat([video, video[:, :, -1:].expand(-1, -1, 6, -1, -1)], dim=2)
    latents = fill.encode(video)
    assert torch.equal(latents, shorter.encode(full)[:, :, :3])
    assert not torch.allclose(latents, shorter.encode(video))
    full = torch.cat([latents, latents[:, :, -1:]], dim=2)
    assert torch.equal(fill.decode(latents), shorter.decode(full)[:, :, :12])


@pytest.mark.parametrize("mode", ["causal", "non_causal"])
def test_fill_means_nothing_where_there_are_no_chunks(make_tiny, random_video, mode):
    video = random_video(6, 32, 32)
    latents = make_tiny(temporal_mode=mode).encode(video)
    assert torch.equal(make_tiny(temporal_mode=mode, partial_chunk="fill").encode(video), latents)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("rows", [None, 16])
def test_a_gpu_gives_what_the_cpu_gives_with_the_state_in_host_memory(make_tiny, random_video, rows):
    model, video = make_tiny(), random_video(24, 64, 64)
    latents, expected = model.encode(video), model(video)
    model, video = model.to("cuda"), video.to("cuda")
    result = model.encode(video, rows_per_step=rows, offload_state=True)
    torch.testing.assert_close(result.cpu(), latents, atol=1e-3, rtol=1e-3)
    result = model.decode(result, rows_per_step=rows, offload_state=True)
    torch.testing.assert_close(result.cpu(), expected, atol=1e-3, rtol=1e-3)


def test_the_state_goes_to_host_memory_only_when_asked(make_tiny):
    # The meta device stands for a GPU: it has no numbers, so moving them to the host fails where it is tried.
    with torch.device("meta"):
        model, video = make_tiny(), torch.empty(1, 3, 16, 32, 32)
    model.encode(video)
    with pytest.raises(NotImplementedError, match="meta tensor"):
        model.encode(video, offload_state=True)


def test_latents_come_out_normalised_and_go_in_normalised(make_tiny, random_video):
    video, mean, std = random_video(8, 32, 32), tuple(float(c) for c in range(16)), (0.5,)
    raw, scaled = make_tiny(), make_tiny(latents_mean=mean, latents_std=std)
    latents = raw.encode(video)
    expected = (latents - torch.tensor(mean).view(1, 16, 1, 1, 1)) / 0.5
    torch.testing.assert_close(scaled.encode(video), expected)
    torch.testing.assert_close(scaled.decode(expected), raw.decode(latents))


def test_a_gaussian_posterior_gives_its_mean(make_tiny, random_video):
    model, video = make_tiny(posterior="gaussian"), random_video(8, 32, 32)
    assert model.encode(video).shape[1] == 16
    assert model.encoder.layers[-1].out_channels == 32
    with torch.no_grad():
        model.encoder.layers[-1].weight[16:].zero_()
    assert torch.equal(model.encode(video), model.encode(video))
    assert model.encode(video).abs().sum() > 0


def test_saved_and_loaded_models_agree_to_the_bit(tiny, random_video, tmp_path):
    tiny.register_to_config(latent_space_id="abc")
    tiny.save_pretrained(tmp_path)
    loaded = dcvideogen.AutoencoderDCV.from_pretrained(tmp_path)
    video = random_video(9, 32, 32)
    assert torch.equal(loaded(video), tiny(video))
    assert loaded.config.latent_space_id == "abc"
    assert loaded.geometry == tiny.geometry


def test_torch_dtype_and_variant_work(tiny, tmp_path, random_video):
    tiny.to(torch.bfloat16).save_pretrained(tmp_path, variant="bf16")
    loaded = dcvideogen.AutoencoderDCV.from_pretrained(tmp_path, variant="bf16", torch_dtype=torch.bfloat16)
    assert loaded.dtype == torch.bfloat16
    out = loaded(random_video(9, 33, 32))
    assert out.dtype == torch.bfloat16
    assert torch.isfinite(out).all()


def test_bf16_stays_close_to_fp32(make_tiny, random_video):
    video, model = random_video(9, 64, 64), make_tiny()
    expected = model(video)
    out = make_tiny().to(torch.bfloat16)(video).float()
    assert (out - expected).square().mean() < 1e-3 * expected.square().mean()


def test_the_fingerprint_names_encoder_and_normalisation_but_not_decoder_or_dtype(make_tiny, tmp_path):
    model = make_tiny()
    name = model.fingerprint()
    assert make_tiny().to(torch.float16).to(torch.float32).fingerprint() == name
    model.save_pretrained(tmp_path)
    assert dcvideogen.AutoencoderDCV.from_pretrained(tmp_path).fingerprint() == name
    model.decoder.layers[0].weight.zero_()
    assert model.fingerprint() == name
    assert make_tiny(latents_std=(2.0,)).fingerprint() != name
    model.encoder.layers[0].conv.weight[0, 0, 0, 0, 0] += 1
    assert model.fingerprint() != name


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.encode(torch.zeros(1, 4, 8, 32, 32)), r"video of shape \(1, 4, 8, 32, 32\); expected"),
        (lambda m: m.encode(torch.zeros(3, 8, 32, 32)), "expected .batch, 3, frames"),
        (lambda m: m.encode(torch.zeros(1, 3, 0, 32, 32)), "none of them empty"),
        (lambda m: m.encode(torch.zeros(1, 3, 8, 32, 32), rows_per_step=0), "rows_per_step is 0"),
        (lambda m: m.decode(torch.zeros(1, 3, 2, 1, 1)), r"expected \(batch, 16, t, h, w\)"),
        (lambda m: m.decode(torch.zeros(1, 16, 2, 1, 1), height=33), "height is 33; these latents hold 1 to 32"),
        (lambda m: m.decode(torch.zeros(1, 16, 2, 1, 1), num_frames=9), "num_frames is 9; .* 1 to 8 frames"),
        (
            lambda m: list(m.encode_stream([torch.zeros(1, 3, 8, 32, 32), torch.zeros(1, 3, 8, 32, 64)])),
            "in a stream whose",
        ),
        (lambda m: list(m.encode_stream([torch.zeros(1, 4, 8, 32, 32)])), r"video of shape \(1, 4, 8, 32, 32\)"),
        (lambda m: list(m.decode_stream([torch.zeros(1, 16, 2, 1, 1)], num_frames=9)), "held only 8 frames"),
        (lambda m: list(m.decode_stream([torch.zeros(1, 16, 2, 1, 1)], num_frames=0)), "num_frames is 0; at least 1"),
    ],
)
def test_wrong_input_is_told_in_one_line(tiny, call, message):
    with pytest.raises(UserError, match=message) as caught:
        call(tiny)
    assert "\n" not in str(caught.value)


def test_moments_are_the_posterior_of_the_normalised_latents(make_tiny, random_video):
    video, std = random_video(19, 40, 33), tuple(0.5 + 0.1 * c for c in range(16))
    scaled, raw = (make_tiny(posterior="gaussian", **f) for f in ({"latents_mean": (3.0,), "latents_std": std}, {}))
    mean, logvar = scaled.encode_moments(video)
    assert torch.equal(mean, scaled.encode(video))
    raw_mean, raw_logvar = raw.encode_moments(video)
    scale = torch.tensor(std).view(1, 16, 1, 1, 1)
    torch.testing.assert_close(mean * scale + 3, raw_mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close((0.5 * logvar).exp() * scale, (0.5 * raw_logvar).exp())
    with torch.no_grad():
        raw.encoder.layers[-1].bias[16:24] = 1000.0
        raw.encoder.layers[-1].bias[24:] = -1000.0
    _, logvar = raw.encode_moments(video)
    assert (logvar[:, :8] == 20).all()
    assert (logvar[:, 8:] == -30).all()


def test_a_deterministic_model_has_no_moments(tiny, random_video):
    with pytest.raises(UserError, match=r"posterior is deterministic: it has no log-variance; use encode, or"):
        tiny.encode_moments(random_video(8, 32, 32))
