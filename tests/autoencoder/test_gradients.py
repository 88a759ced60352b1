"""Training's ways through the model: gradient checkpointing, gradients between chunks, compilation."""

import pytest
import torch

from dcvideogen.autoencoder.layers import ChunkCausalConv3d
from dcvideogen.autoencoder.state import StreamState
from dcvideogen.errors import UserError

MODES = ["chunk_causal", "causal", "non_causal"]


def gradients(model, video, **options):
    """Result and gradients of a loss that weighs every number differently."""
    model.zero_grad()
    out = model(video, **options)
    weights = torch.linspace(0.5, 1.5, out.numel()).view(out.shape)
    (out.square() * weights).mean().backward()
    return out.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


def saved_bytes(run):
    """Bytes of the tensors that autograd keeps for the backward pass, each storage counted once, weights left out."""
    kept = {}

    def pack(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = run()
    return sum(kept.values()), out


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("past_gradient", [True, False])
def test_checkpointing_changes_no_gradient_over_several_chunks(make_tiny, random_video, mode, past_gradient):
    model, video = make_tiny(temporal_mode=mode), random_video(19, 40, 33, batch=2)
    expected, plain = gradients(model, video, past_gradient=past_gradient)
    model.enable_gradient_checkpointing()
    out, again = gradients(model, video, past_gradient=past_gradient)
    assert torch.equal(out, expected)
    for name, gradient in plain.items():
        assert torch.equal(again[name], gradient), name


def test_checkpointing_runs_every_layer_twice_and_only_while_it_is_on(tiny, random_video):
    video, runs = random_video(16, 32, 32), []
    for layer in (*tiny.encoder.layers, *tiny.decoder.layers):
        layer.register_forward_pre_hook(lambda *_: runs.append(1))
    number = 2 * len([*tiny.encoder.layers, *tiny.decoder.layers])  # two chunks
    for change, expected in (
        (lambda: None, number),
        (tiny.enable_gradient_checkpointing, 2 * number),
        (tiny.disable_gradient_checkpointing, number),
    ):
        change()
        runs.clear()
        gradients(tiny, video)
        assert len(runs) == expected
    tiny.enable_gradient_checkpointing()
    runs.clear()
    with torch.no_grad():
        tiny(video, past_gradient=True)
    assert len(runs) == number


def test_checkpointing_keeps_the_layers_inputs_alone(make_tiny, random_video):
    model, video = make_tiny(layers_per_block=(4, 4, 2, 2, 1, 1)), random_video(16, 64, 64)
    plain, _ = saved_bytes(lambda: model(video))
    model.enable_gradient_checkpointing()
    inputs = []
    for layer in (*model.encoder.layers, *model.decoder.layers):
        layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0].nbytes))
    checkpointed, out = saved_bytes(lambda: model(video))
    assert checkpointed < 1.01 * sum(inputs)
    assert checkpointed < 0.25 * plain
    out.square().mean().backward()


def test_checkpointing_by_rows_is_refused(tiny, random_video):
    tiny.enable_gradient_checkpointing()
    video = random_video(8, 64, 32)
    with pytest.raises(UserError, match="rows_per_step is 8 with gradient checkpointing, which runs whole chunks"):
        tiny.encode(video, rows_per_step=8)
    with torch.no_grad():
        torch.testing.assert_close(tiny.encode(video, rows_per_step=8), tiny.encode(video), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["chunk_causal", "causal"])
def test_gradients_reach_earlier_chunks_only_where_they_are_wanted(make_tiny, random_video, mode):
    model = make_tiny(temporal_mode=mode)
    video = random_video(24, 32, 32).requires_grad_()
    for past_gradient in (True, False):
        (latents_grad,) = torch.autograd.grad(
            model.encode(video, past_gradient=past_gradient)[:, :, 4:].square().sum(), video
        )
        assert (latents_grad[:, :, 8:16].abs().sum() > 0) == past_gradient
        assert latents_grad[:, :, 16:].abs().sum() > 0
        latents = torch.randn(1, 16, 6, 1, 1, generator=torch.Generator().manual_seed(0)).requires_grad_()
        (gradient,) = torch.autograd.grad(
            model.decode(latents, past_gradient=past_gradient)[:, :, 16:].square().sum(), latents
        )
        assert (gradient[:, :, 2:4].abs().sum() > 0) == past_gradient
        assert gradient[:, :, 4:].abs().sum() > 0
    assert torch.equal(model(video), model(video, past_gradient=False))


def test_a_convs_kept_frame_carries_its_gradient_to_the_chunk_before():
    conv = ChunkCausalConv3d(2, 3, "chunk_causal")
    first, second = (torch.randn(1, 2, 4, 5, 6, requires_grad=True) for _ in range(2))
    whole = torch.cat([first[:, :, -1:], second], dim=2)
    conv3d = torch.nn.functional.conv3d
    expected = conv3d(torch.nn.functional.pad(whole, (0, 0, 0, 0, 0, 1)), conv.weight, conv.bias, padding=(0, 1, 1))
    (expected_gradient,) = torch.autograd.grad(expected.square().sum(), first)
    state = StreamState()
    conv(first, state, True)
    (gradient,) = torch.autograd.grad(conv(second, state, True).square().sum(), first)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.fixture
def make_pair(make_tiny):
    """Makes a small model, another one with its networks compiled in place, and the list of the latter's graphs."""
    torch._dynamo.reset()
    sizes = {"block_out_channels": (8, 8), "layers_per_block": (0, 1)}
    sizes |= {"spatial_factors": (2, 1), "temporal_factors": (1, 4)}

    def make(**options):
        plain, model, graphs = make_tiny(**sizes, **options), make_tiny(**sizes, **options), []

        def backend(graph, example_inputs):
            graphs.append(graph)
            return graph

        model.encoder.compile(backend=backend)
        model.decoder.compile(backend=backend)
        return plain, model, graphs

    yield make
    torch._dynamo.reset()


@pytest.mark.parametrize("mode", ["chunk_causal", "non_causal"])
def test_compiled_networks_give_the_same_in_one_graph_per_kind_of_chunk(make_pair, random_video, mode):
    video = random_video(36, 16, 16, batch=2)
    plain, model, graphs = make_pair(temporal_mode=mode)
    with torch.no_grad():
        torch.testing.assert_close(model(video), plain(video), atol=1e-5, rtol=1e-5)
    # A first, a middle and a last chunk of encoder and decoder: the state breaks no graph.
    assert len(graphs) == (2 if mode == "non_causal" else 6)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_networks_give_the_same_gradients(make_pair, random_video, checkpointing):
    video = random_video(16, 16, 16)
    plain, model, graphs = make_pair()
    if checkpointing:
        model.enable_gradient_checkpointing()
    (out, found), (expected, wanted) = gradients(model, video), gradients(plain, video)
    assert len(graphs) == 4
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("part", ["encoder.layers.4", "decoder", "decoder.layers.10"])
def test_checkpointing_trains_a_part_as_without(tiny, random_video, part):
    video, trained = random_video(16, 32, 32), {}
    for name, parameter in tiny.named_parameters():
        parameter.requires_grad_(name.startswith(f"{part}."))
    for checkpointing in (False, True):
        if checkpointing:
            tiny.enable_gradient_checkpointing()
        tiny.zero_grad()
        tiny(video).square().mean().backward()
        trained[checkpointing] = {name: p.grad for name, p in tiny.named_parameters() if p.requires_grad}
    assert trained[True]
    assert all(torch.equal(gradient, trained[True][name]) for name, gradient in trained[False].items())
