"""The authors' folders, in both layouts, from tiny random weights of the real classes."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "adaptation"))
from base_folder import write_image_encoder, write_text_encoder
from tiny_models import CLIP, tiny_transformer

from dcvideogen.autoencoder.presets import make_autoencoder
from dcvideogen.errors import UserError
from dcvideogen.pipelines.published import NULL_PROMPT, find_published, load_published

PT = "dc-ae-v-f32t4c32-1.0-bf16.pt"
I2V = {"in_channels": 68}
SOURCE = Path(__file__).parents[2] / "src" / "dcvideogen"


def transformer(folder, **overrides):
    sizes = {"in_channels": 32, "out_channels": 32, "patch_size": (1, 1, 1), **overrides}
    tiny_transformer("wan", **sizes).save_pretrained(folder)


def checkpoint(path, latent_channels=32):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make_autoencoder("dcae-tiny-f32t4c16", latent_channels=latent_channels).to(torch.bfloat16)
    model.to_official_checkpoint(path)


def scheduler(folder, shift):
    from diffusers import UniPCMultistepScheduler

    UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift).save_pretrained(
        folder
    )


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """A folder with text_encoder/, tokenizer/, image_encoder/ and image_processor/, as a base's has."""
    folder = tmp_path_factory.mktemp("base")
    write_text_encoder(folder)
    write_image_encoder(folder)
    return folder


@pytest.fixture(scope="module")
def pt(tmp_path_factory):
    path = tmp_path_factory.mktemp("autoencoder") / PT
    checkpoint(path)
    return path


@pytest.fixture(scope="module")
def t2v(tmp_path_factory, encoders, pt):
    """As dc-ai/DC-Gen-Wan2.1-T2V-14B."""
    folder = tmp_path_factory.mktemp("published") / "DC-Gen-T2V"
    transformer(folder / "transformer")
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(encoders / part, folder / part)
    scheduler(folder / "scheduler", shift=3.0)
    shutil.copy(pt, folder)
    return folder


@pytest.fixture(scope="module")
def i2v(tmp_path_factory, encoders, pt):
    """As dc-ai/DC-Gen-Wan2.1-I2V-14B, with CLIP."""
    folder = tmp_path_factory.mktemp("published") / "DC-Gen-I2V"
    transformer(folder / "transformer", **I2V | CLIP)
    shutil.copytree(encoders, folder, dirs_exist_ok=True)
    shutil.copy(pt, folder)
    return folder


@pytest.fixture(scope="module")
def older(tmp_path_factory, pt):
    """As nvidia/DC-VideoGen-Wan2.1-14B: two transformers, nothing to encode with."""
    folder = tmp_path_factory.mktemp("published") / "DC-VideoGen"
    transformer(folder / "transformer_t2v")
    transformer(folder / "transformer_i2v", **I2V)
    shutil.copy(pt, folder)
    return folder


@pytest.fixture
def copy_of(tmp_path):
    def copy(folder):
        return Path(shutil.copytree(folder, tmp_path / folder.name))

    return copy


def change_config(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


def test_what_a_folder_offers_is_seen_without_loading_it(t2v, i2v, older):
    assert find_published(t2v).tasks == ("t2v",)
    assert find_published(str(i2v)).tasks == ("i2v",)
    assert find_published(older).tasks == ("t2v", "i2v")
    found = find_published(older)
    assert found.transformers == {"t2v": "transformer_t2v", "i2v": "transformer_i2v"}
    assert found.configs["i2v"]["in_channels"] == 68
    assert found.checkpoint == older / PT
    assert found.autoencoder_config["latent_channels"] == 32
    with torch.device("meta"):
        from dcvideogen import AutoencoderDCV

        assert AutoencoderDCV(**found.autoencoder_config).geometry.spatial_ratio == 32


def test_text_to_video_loads_with_the_autoencoder_converted(t2v):
    parts, info = load_published(find_published(t2v), "t2v")
    assert list(parts) == ["tokenizer", "text_encoder", "transformer", "autoencoder", "scheduler"]
    autoencoder = parts["autoencoder"]
    stored = torch.load(t2v / PT, weights_only=True)["model_state_dict"]
    assert torch.equal(autoencoder.encoder.layers[-1].weight, stored["encoder.project_out.conv.weight"].float())
    assert autoencoder.config._name_or_path == PT
    assert autoencoder.config.partial_chunk == "fill"
    assert autoencoder.config.chunk_frames == 40
    assert autoencoder.config.latents_std == (1 / 0.7241,)
    assert (info.latent_space_id, info.latent_channels) == (autoencoder.config.latent_space_id, 32)
    assert (info.family, info.positions, info.spatial_ratio, info.temporal_ratio) == ("wan", "integer", 32, 4)
    assert (info.sampling.steps, info.sampling.shift) == (50, 3.0)
    assert (info.trained.null_prompt, info.trained.max_sequence_length) == (NULL_PROMPT, 512)
    for name in ("text_encoder", "transformer", "autoencoder"):
        assert not parts[name].training
        assert {parameter.dtype for parameter in parts[name].parameters()} == {torch.float32}


@torch.no_grad()
def test_its_pipeline_makes_a_video(t2v):
    from dcvideogen.pipelines.text_to_video import DCVideoGenPipeline

    parts, info = load_published(find_published(t2v), "t2v")
    pipeline = DCVideoGenPipeline(**parts, adaptation=info.model_dump(mode="json"))
    pipeline.set_progress_bar_config(disable=True)
    video = pipeline("a cat", height=40, width=32, num_frames=5, num_inference_steps=2, output_type="np").frames
    assert video.shape == (1, 5, 40, 32, 3)


@torch.no_grad()
@pytest.mark.parametrize("layout", ["i2v", "older"])
def test_its_pipeline_continues_an_image(layout, request, encoders):
    from PIL import Image

    from dcvideogen.pipelines.image_to_video import DCVideoGenImageToVideoPipeline

    found = find_published(request.getfixturevalue(layout))
    parts, info = load_published(found, "i2v", text_from=encoders)
    pipeline = DCVideoGenImageToVideoPipeline(**parts, adaptation=info.model_dump(mode="json"))
    pipeline.set_progress_bar_config(disable=True)
    image = Image.new("RGB", (64, 48), (200, 30, 30))
    video = pipeline(image, "a cat", height=32, width=40, num_frames=5, num_inference_steps=2).frames
    assert video.shape == (1, 5, 32, 40, 3)


def test_every_dtype_has_the_latent_space_of_the_stored_weights(t2v):
    spaces = set()
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        parts, info = load_published(find_published(t2v), "t2v", dtype=dtype)
        assert {parts[name].dtype for name in ("transformer", "autoencoder", "text_encoder")} == {dtype}
        spaces.add(info.latent_space_id)
    assert len(spaces) == 1


def test_image_to_video_loads_with_clip_and_wans_scheduler(i2v):
    parts, info = load_published(find_published(i2v), "i2v")
    assert type(parts["image_encoder"]).__name__ == "CLIPVisionModel"
    assert parts["image_processor"].size["height"] == 32
    assert parts["transformer"].config.in_channels == 68
    assert type(parts["scheduler"]).__name__ == "UniPCMultistepScheduler"
    config = parts["scheduler"].config
    assert (config.use_flow_sigmas, config.flow_shift, config.prediction_type) == (True, 5.0, "flow_prediction")
    assert info.sampling.shift == 5.0


def test_the_older_layout_takes_its_encoders_from_another_folder(older, encoders):
    found = find_published(older)
    parts, _ = load_published(found, "t2v", text_from=encoders)
    assert parts["transformer"].config.in_channels == 32
    assert "image_encoder" not in parts
    parts, _ = load_published(found, "i2v", text_from=encoders)
    assert parts["transformer"].config.in_channels == 68
    assert (parts["image_encoder"], parts["image_processor"]) == (None, None)


def test_clip_comes_from_another_folder_where_it_lacks(i2v, encoders, copy_of):
    folder = copy_of(i2v)
    shutil.rmtree(folder / "image_processor")
    with pytest.raises(UserError, match=r"no image_processor/ in .*DC-Gen-I2V; give text_from"):
        load_published(find_published(folder), "i2v")
    parts, _ = load_published(find_published(folder), "i2v", text_from=encoders)
    assert parts["image_encoder"] is not None


@pytest.mark.parametrize("missing", ["text_encoder", "tokenizer"])
def test_a_folder_without_text_encoder_or_tokenizer_says_what_to_give(t2v, encoders, copy_of, missing):
    folder = copy_of(t2v)
    shutil.rmtree(folder / missing)
    with pytest.raises(UserError, match=rf"no {missing}/ in .*DC-Gen-T2V; give text_from a pipeline's folder"):
        load_published(find_published(folder), "t2v")
    parts, _ = load_published(find_published(folder), "t2v", text_from=encoders)
    assert parts["text_encoder"].config.d_model == 16


def test_encoders_of_other_widths_are_refused(t2v, i2v, copy_of):
    folder = copy_of(t2v)
    change_config(folder / "transformer", text_dim=4096)
    with pytest.raises(UserError, match="text_encoder gives tokens of 16 numbers, and the transformer takes 4096"):
        load_published(find_published(folder), "t2v")
    folder = copy_of(i2v)
    change_config(folder / "transformer", image_dim=1280)
    with pytest.raises(UserError, match="image_encoder gives tokens of 20 numbers, and the transformer takes 1280"):
        load_published(find_published(folder), "i2v")


def test_another_task_than_the_folder_offers_is_refused(t2v):
    with pytest.raises(UserError, match="is for t2v; i2v came"):
        load_published(find_published(t2v), "i2v")


def test_the_autoencoder_may_come_from_elsewhere(t2v, pt, copy_of, tmp_path):
    folder = copy_of(t2v)
    (folder / PT).unlink()
    found = find_published(folder)
    assert (found.tasks, found.checkpoint) == (("t2v",), None)
    with pytest.raises(UserError, match=r"DC-Gen-T2V has no \.pt file with the autoencoder; name one"):
        load_published(found, "t2v")
    own = load_published(find_published(t2v), "t2v")[0]["autoencoder"]
    own.save_pretrained(tmp_path / "converted")
    for autoencoder in (pt, pt.parent, tmp_path / "converted"):
        _, info = load_published(found, "t2v", autoencoder=autoencoder)
        assert info.latent_space_id == own.config.latent_space_id
    with pytest.raises(UserError, match=r"generates latents of 32 channels, and the autoencoder .*t4c128 has 128"):
        load_published(found, "t2v", autoencoder="dcae-small-f32t4c128")


def test_other_folders_are_none_of_the_authors(encoders, tmp_path):
    assert find_published(tmp_path / "gone") is None
    (tmp_path / "a.pt").touch()
    assert find_published(tmp_path / "a.pt") is None
    assert find_published(encoders) is None
    for name in ("shapes-base", "dcae-small-f32t4c128"):
        assert find_published(SOURCE / "weights" / name) is None
    transformer(tmp_path / "export" / "transformer")
    (tmp_path / "export" / "transformer" / "adaptation.json").write_text("{}")
    assert find_published(tmp_path / "export") is None
    transformer(tmp_path / "wan" / "transformer", in_channels=16, out_channels=16, patch_size=(1, 2, 2))
    assert find_published(tmp_path / "wan") is None


def test_several_autoencoders_are_refused(t2v, copy_of):
    folder = copy_of(t2v)
    shutil.copy(folder / PT, folder / "other.pt")
    with pytest.raises(UserError, match=r"has 2 \.pt files \(dc-ae-v-.*, other\.pt\); one, the autoencoder's"):
        find_published(folder)


def test_an_autoencoder_without_a_transformer_is_no_pipeline(pt):
    with pytest.raises(UserError, match=r"holds the autoencoder dc-ae-v-.* and no transformer; give a folder with"):
        find_published(pt.parent)


def test_channels_that_do_not_fit_the_autoencoder_are_refused(t2v, copy_of):
    folder = copy_of(t2v)
    checkpoint(folder / PT, latent_channels=64)
    with pytest.raises(UserError, match=r"generates latents of 32 channels, and the autoencoder dc-ae-v-.* has 64"):
        find_published(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"in_channels": 36}, r"takes 36 channels for latents of 32; 32 .text to video. or 68 .image to video."),
        ({"out_channels": None}, "in_channels 32 and out_channels None"),
        ({"_class_name": "MochiTransformer3DModel"}, "holds a MochiTransformer3DModel; a published folder has a Wan"),
    ],
)
def test_transformers_of_another_kind_are_refused(t2v, copy_of, fields, message):
    folder = copy_of(t2v)
    change_config(folder / "transformer", **fields)
    with pytest.raises(UserError, match=message):
        find_published(folder)


def test_a_transformer_in_the_wrong_subfolder_or_twice_is_refused(older, copy_of):
    folder = copy_of(older)
    (folder / "transformer_i2v").rename(folder / "kept")
    (folder / "transformer_t2v").rename(folder / "transformer_i2v")
    with pytest.raises(UserError, match="transformer_i2v holds a transformer for t2v; its name says i2v"):
        find_published(folder)
    (folder / "transformer_i2v").rename(folder / "transformer_t2v")
    shutil.copytree(folder / "transformer_t2v", folder / "transformer")
    with pytest.raises(UserError, match="two transformers for t2v, transformer and transformer_t2v"):
        find_published(folder)


class Code:
    def __reduce__(self):
        return print, ("this must never run",)


def test_a_checkpoint_with_code_in_it_is_refused_and_never_run(t2v, copy_of, capsys):
    folder = copy_of(t2v)
    torch.save({"model_state_dict": {"a": Code()}}, folder / PT)
    with pytest.raises(UserError, match=r"or holds other Python objects, which are never run") as caught:
        find_published(folder)
    assert "\n" not in str(caught.value)
    assert PT in str(caught.value)
    assert "this must never run" not in capsys.readouterr().out


def test_checkpoints_of_other_things_are_named(t2v, copy_of):
    folder = copy_of(t2v)
    torch.save({"model_state_dict": {"weight": torch.zeros(2)}}, folder / PT)
    with pytest.raises(UserError, match=rf"{PT}: the checkpoint has no tensors named encoder\.stages"):
        find_published(folder)
    (folder / PT).write_bytes((t2v / PT).read_bytes()[:5000])
    with pytest.raises(UserError, match=rf"{PT} cannot be read as a PyTorch file"):
        find_published(folder)
    stored = torch.load(t2v / PT, weights_only=True)["model_state_dict"]
    stored["decoder.project_in.conv.bias"] = torch.full_like(stored["decoder.project_in.conv.bias"], torch.nan)
    torch.save({"model_state_dict": stored}, folder / PT)
    with pytest.raises(UserError, match=rf"{PT}: 'decoder\.project_in\.conv\.bias' holds numbers that are not finite"):
        load_published(find_published(folder), "t2v")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "scheduler_config.json is no JSON object"),
        ("[]", "scheduler_config.json is no JSON object"),
        ('{"_class_name": "Foo"}', "names the scheduler Foo, which diffusers .* does not have"),
        ('{"_class_name": "AutoencoderKLWan"}', "names the scheduler AutoencoderKLWan"),
        ('{"_class_name": "UniPCMultistepScheduler"}', "predict epsilon; prediction_type flow_prediction is allowed"),
        ('{"_class_name": "UniPCMultistepScheduler", "solver_type": "best"}', "does not fit UniPCMultistepScheduler"),
    ],
)
def test_schedulers_that_are_none_are_named(t2v, copy_of, content, message):
    folder = copy_of(t2v)
    (folder / "scheduler" / "scheduler_config.json").write_text(content)
    with pytest.raises(UserError, match=message):
        load_published(find_published(folder), "t2v")


def test_the_null_prompt_is_the_one_that_our_recipes_train_with():
    recipe = yaml.safe_load((SOURCE / "recipes" / "wan2.1-t2v-14b.yaml").read_text(encoding="utf-8"))
    assert NULL_PROMPT in (recipe["cache"]["null_prompt"], recipe["cache"]["null_prompt"].strip())
