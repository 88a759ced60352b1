"""What every family must hold: its ends are linear maps we can read and write, and surgery changes nothing else."""

import pytest
import torch
from tiny_models import ROWS, SIZES, tiny_batch, tiny_row

from dcvideogen.adaptation.backbones import FAMILIES, backbone_named, backbone_of
from dcvideogen.adaptation.folder import AdaptationInfo, fingerprint, load_base, load_transformer, save_transformer
from dcvideogen.adaptation.lora import LoraSettings, add_lora
from dcvideogen.adaptation.surgery import is_end, move_transformer
from dcvideogen.errors import UserError
from dcvideogen.flow import add_noise, velocity_target

SIGMA = torch.tensor([0.3, 0.9])


def moved(name, seed=0):
    """The row's transformer in latents of 6 channels, one per token, and a batch of such latents."""
    backbone, base, _ = tiny_row(name)
    new = move_transformer(base, backbone, latent_channels=6, patch_size=(1, 1, 1), seed=seed)
    condition = 4 + 6 if backbone.condition_channels(base.config) else 0
    given = {key: ROWS[name][2][key] for key in ("image_dim", "pooled_dim") if key in ROWS[name][2]}
    return backbone, base, new, tiny_batch(channels=6, grid=(3, 2, 2), condition_channels=condition, **given)


def test_every_family_has_rows():
    assert {family for family, _, _ in ROWS.values()} == set(FAMILIES) == set(SIZES)


@pytest.mark.parametrize("name", ROWS)
@torch.no_grad()
def test_features_through_the_head_are_the_velocity(name):
    backbone, transformer, batch = tiny_row(name)
    config = transformer.config
    features = backbone.features(transformer, batch.latents, SIGMA, batch)
    velocity = backbone.velocity(transformer, batch.latents, SIGMA, batch)
    grid = backbone.embedder_inputs(backbone.model_input(batch.latents, batch.condition), config).shape[1:4]
    outputs = backbone.head_module(transformer)(features)
    assert torch.equal(backbone.head_velocity(outputs, grid, config), velocity)
    weight, bias = backbone.head_weight(transformer)
    assert torch.allclose(features @ weight.T + (0 if bias is None else bias), outputs, atol=1e-5)
    assert velocity.shape == batch.latents.shape
    assert velocity.dtype == torch.float32
    assert velocity.std() > 0.1


@pytest.mark.parametrize("name", ROWS)
@torch.no_grad()
def test_embedding_is_the_weight_on_patches(name):
    backbone, transformer, batch = tiny_row(name)
    inputs = backbone.model_input(batch.latents, batch.condition)
    weight, bias = backbone.embedder_weight(transformer)
    linear = backbone.embedder_inputs(inputs, transformer.config) @ weight.T + (0 if bias is None else bias)
    assert torch.allclose(backbone.embed(transformer, inputs), linear, atol=1e-5)


@pytest.mark.parametrize("name", ROWS)
@torch.no_grad()
def test_the_embedding_is_what_the_blocks_are_given(name):
    """The embedder as the transformer itself calls it, on the inputs that velocity makes."""
    backbone, transformer, batch = tiny_row(name)
    seen = []
    hook = backbone.embedder_module(transformer).register_forward_hook(lambda *args: seen.append(args[2]))
    backbone.velocity(transformer, batch.latents, SIGMA, batch)
    hook.remove()
    tokens = backbone.embed(transformer, backbone.model_input(batch.latents, batch.condition))
    assert torch.allclose(seen[0].reshape(-1).sort().values, tokens.reshape(-1).sort().values, atol=1e-5)
    assert len(seen) == 1


@pytest.mark.parametrize("name", ROWS)
def test_head_targets_invert(name):
    backbone, transformer, batch = tiny_row(name)
    config = transformer.config
    grid = tuple(size // step for size, step in zip(batch.latents.shape[2:], backbone.patch_size(config), strict=True))
    targets = backbone.head_targets(batch.latents, config)
    assert targets.shape == (2, grid[0] * grid[1] * grid[2], backbone.head_weight(transformer)[0].shape[0])
    assert torch.equal(backbone.head_velocity(targets, grid, config), batch.latents)


@pytest.mark.parametrize("name", ROWS)
@torch.no_grad()
def test_ends_that_were_written_are_used(name):
    backbone, _, new, batch = moved(name)
    generator = torch.Generator().manual_seed(3)
    weight, bias = (end if end is None else torch.randn(end.shape, generator=generator) for end in
                    backbone.embedder_weight(new))  # fmt: skip
    backbone.set_embedder(new, weight, bias)
    inputs = backbone.model_input(batch.latents, batch.condition)
    linear = backbone.embedder_inputs(inputs, new.config) @ weight.T + (0 if bias is None else bias)
    assert torch.allclose(backbone.embed(new, inputs), linear, atol=1e-4)
    weight, bias = backbone.head_weight(new)
    backbone.set_head(new, torch.zeros_like(weight), None if bias is None else torch.zeros_like(bias))
    assert not backbone.velocity(new, batch.latents, SIGMA, batch).any()
    with pytest.raises(ValueError, match="came"):
        backbone.set_head(new, weight[:1], bias)
    with pytest.raises(ValueError, match="bias"):
        backbone.set_embedder(new, weight, torch.zeros(1) if backbone.embedder_weight(new)[1] is None else None)


@pytest.mark.parametrize("name", ROWS)
def test_surgery_leaves_every_other_weight_as_it_was(name):
    backbone, base, new, batch = moved(name)
    before, after = base.state_dict(), new.state_dict()
    rest = [key for key in after if not is_end(key, backbone)]
    assert rest == [key for key in before if not is_end(key, backbone)]
    assert all(torch.equal(before[key], after[key]) for key in rest)
    assert all(before[key].data_ptr() != after[key].data_ptr() for key in rest)
    assert backbone.velocity(new, batch.latents, SIGMA, batch).shape == batch.latents.shape
    assert backbone.patch_size(new.config) == (1, 1, 1)
    assert backbone.latent_channels(new.config) == 6
    assert not any(buffer.is_meta for buffer in new.buffers())


@pytest.mark.parametrize("name", FAMILIES)
def test_new_ends_come_from_the_seed_alone(name):
    torch.manual_seed(5)
    backbone, _, first, _ = moved(name, seed=1)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    _, _, again, _ = moved(name, seed=1)
    assert torch.equal(torch.rand(1), drawn)
    other = moved(name, seed=2)[2]
    for weight_of in (backbone.embedder_weight, backbone.head_weight):
        assert torch.equal(weight_of(first)[0], weight_of(again)[0])
        assert not torch.equal(weight_of(first)[0], weight_of(other)[0])
        assert weight_of(first)[0].std() > 0


def test_surgery_keeps_every_dtype(tmp_path):
    """A base in bf16 has parts in fp32."""
    tiny_row("wan")[1].save_pretrained(tmp_path / "transformer")
    base, backbone = load_base(tmp_path, dtype=torch.bfloat16)
    new = move_transformer(base, backbone, latent_channels=6, patch_size=(1, 1, 1), seed=0)
    dtypes = {name: tensor.dtype for name, tensor in base.state_dict().items()}
    assert set(dtypes.values()) == {torch.bfloat16, torch.float32}
    assert {name: tensor.dtype for name, tensor in new.state_dict().items()} == dtypes
    assert new.rope.freqs_cos.dtype == torch.float32
    assert not new.training
    base.train()
    assert move_transformer(base, backbone, latent_channels=6, patch_size=(1, 1, 1), seed=0).training


@pytest.mark.parametrize("name", ROWS)
def test_surgery_works_on_meta(name):
    backbone, base, new, _ = moved(name)
    shapes = move_transformer(base.to("meta"), backbone, latent_channels=6, patch_size=(1, 1, 1), seed=0).state_dict()
    assert {key: value.shape for key, value in shapes.items()} == {
        key: value.shape for key, value in new.state_dict().items()
    }
    assert all(value.is_meta for value in shapes.values())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_lora_step_trains_what_it_says_and_lowers_the_loss(name):
    backbone, _, new, batch = moved(name)
    patterns = add_lora(new, backbone, LoraSettings(targets="attention+ffn", rank=2, alpha=4))
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(2))
    noisy = add_noise(batch.latents, noise, SIGMA)

    def loss():
        velocity = backbone.velocity(new, noisy, SIGMA, batch)
        return (velocity - velocity_target(batch.latents, noise)).square().mean()

    trained = [parameter for parameter in new.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.02)
    first = loss()
    first.backward()
    names = {name for name, parameter in new.named_parameters() if parameter.grad is not None}
    assert names == {name for name, parameter in new.named_parameters() if parameter.requires_grad}
    assert any(is_end(name, backbone) for name in names)
    assert any("lora_B" in name for name in names)
    assert set(backbone.head_modulation) <= names
    assert patterns
    optimizer.step()
    assert loss() < first


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_a_moved_transformer_is_the_same_after_save_and_load(name, tmp_path):
    backbone, base, new, batch = moved(name)
    info = AdaptationInfo(
        latent_space_id="space", latent_channels=6, spatial_ratio=32, temporal_ratio=4, base=fingerprint(base),
        family=backbone.family,
    )  # fmt: skip
    save_transformer(new, tmp_path / "moved", info)
    loaded, loaded_info = load_transformer(tmp_path / "moved")
    assert loaded_info == info
    expected = backbone.velocity(new, batch.latents, SIGMA, batch)
    assert torch.equal(backbone.velocity(loaded, batch.latents, SIGMA, batch), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["moved"]


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_velocity_runs_under_bf16_autocast_and_in_bf16(name):
    backbone, transformer, batch = tiny_row(name)
    exact = backbone.velocity(transformer, batch.latents, SIGMA, batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = backbone.velocity(transformer, batch.latents, SIGMA, batch)
    assert half.dtype == torch.float32
    assert 0 < (half - exact).square().mean() < 0.05**2 * exact.square().mean()
    whole = backbone.velocity(transformer.to(torch.bfloat16), batch.latents, SIGMA, batch)
    assert whole.dtype == torch.float32
    assert (whole - exact).square().mean() < 0.1**2 * exact.square().mean()


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_gradient_checkpointing_changes_nothing(family):
    backbone, transformer, batch = tiny_row(family)
    plain = backbone.velocity(transformer, batch.latents, SIGMA, batch)
    transformer.enable_gradient_checkpointing()
    with torch.enable_grad():
        saved = backbone.velocity(transformer.train(), batch.latents, SIGMA, batch)
        saved.square().mean().backward()
    assert torch.equal(saved.detach(), plain)
    assert backbone.embedder_module(transformer).weight.grad.any()


@pytest.fixture
def one_process():
    """A process group of one."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_transformer_may_be_wrapped_for_several_processes(family, one_process):
    backbone, transformer, batch = tiny_row(family)
    expected = backbone.velocity(transformer, batch.latents, SIGMA, batch).detach()
    features = backbone.features(transformer, batch.latents, SIGMA, batch).detach()
    wrapped = torch.nn.parallel.DistributedDataParallel(transformer)
    velocity = backbone.velocity(wrapped, batch.latents, SIGMA, batch)
    assert torch.equal(velocity.detach(), expected)
    assert torch.equal(backbone.features(wrapped, batch.latents, SIGMA, batch).detach(), features)
    inputs = backbone.model_input(batch.latents, None)
    assert torch.equal(backbone.embed(wrapped, inputs), backbone.embed(transformer, inputs))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_class_names_its_family(family):
    backbone = backbone_named(family)
    assert backbone_of({"_class_name": backbone.class_name}) is backbone


def test_unknown_families_are_named_with_the_known_ones():
    with pytest.raises(
        UserError, match=r"'sora' came; known: wan, skyreels-v2, hunyuan-video, cogvideox, ltx, mochi, cosmos"
    ):
        backbone_named("sora")
    with pytest.raises(UserError, match=r"class UNet came; known: WanTransformer3DModel \(wan\), "):
        backbone_of({"_class_name": "UNet"})


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_that_the_patch_does_not_divide_are_refused(family):
    backbone, transformer, _ = tiny_row({"ltx": "ltx in patches"}.get(family, family))
    batch = tiny_batch(grid=(3, 4, 5))
    for call in (
        lambda: backbone.velocity(transformer, batch.latents, SIGMA, batch),
        lambda: backbone.embed(transformer, batch.latents),
        lambda: backbone.head_targets(batch.latents, transformer.config),
    ):
        with pytest.raises(UserError, match=r"latents of 3x4x5 .* patches of 1x2x2"):
            call()


@pytest.mark.parametrize("family", FAMILIES)
def test_latents_of_other_channels_are_refused(family):
    backbone, transformer, _ = tiny_row(family)
    batch = tiny_batch(channels=5)
    with pytest.raises(UserError, match="5 input channels came for a transformer of 4"):
        backbone.velocity(transformer, batch.latents, SIGMA, batch)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in ("wan", "skyreels-v2")])
def test_image_to_video_is_refused_where_it_is_not_known(family):
    backbone, base, _ = tiny_row(family)
    with pytest.raises(UserError, match=f"image to video came for {family}"):
        backbone.with_latents(base.config, latent_channels=4, patch_size=(1, 1, 1), condition=True)


def test_patches_that_a_family_cannot_have_are_refused():
    for family in ("hunyuan-video", "cogvideox", "ltx", "mochi"):
        backbone, base, _ = tiny_row(family)
        with pytest.raises(UserError, match=r"patches of \(1, 2, 1\) came .* square"):
            backbone.with_latents(base.config, latent_channels=4, patch_size=(1, 2, 1), condition=False)
    with pytest.raises(UserError, match="square ones of one frame"):
        backbone.with_latents(base.config, latent_channels=4, patch_size=(2, 1, 1), condition=False)
    with pytest.raises(UserError, match="1 or more are allowed"):
        backbone.with_latents(base.config, latent_channels=0, patch_size=(1, 1, 1), condition=False)
