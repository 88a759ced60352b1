import json

import diffusers
import pytest
import torch
import transformers
from tiny_pipeline import tiny_pipeline

from dcvideogen.adaptation.adapter_folder import AdapterRecord, ends_of, write_adapter
from dcvideogen.adaptation.device_speed import device_name
from dcvideogen.adaptation.folder import AdaptationInfo, SamplingDefaults, Trained, fingerprint, load_base
from dcvideogen.adaptation.surgery import move_transformer
from dcvideogen.autoencoder.loading import load_autoencoder
from dcvideogen.errors import UserError
from dcvideogen.pipelines import loading
from dcvideogen.pipelines.base_pipeline import BaseTextToVideo
from dcvideogen.pipelines.image_to_video import DCVideoGenImageToVideoPipeline
from dcvideogen.pipelines.loading import find_model, load_pipeline, without_progress_bars
from dcvideogen.pipelines.noise import video_generator
from dcvideogen.pipelines.text_to_video import DCVideoGenPipeline
from dcvideogen.weights import bundled_pipelines


def make_adapter(folder, adds_condition=False):
    """For the bundled base and autoencoder, with random ends."""
    base, backbone = load_base(bundled_pipelines()["shapes-base"])
    autoencoder = load_autoencoder("shapes-dcae")
    geometry, channels = autoencoder.geometry, autoencoder.config.latent_channels
    moved = move_transformer(
        base, backbone, latent_channels=channels, patch_size=(1, 1, 1), seed=0, adds_condition=adds_condition
    )
    info = AdaptationInfo(
        latent_space_id=autoencoder.config.latent_space_id, latent_channels=channels,
        spatial_ratio=geometry.spatial_ratio, temporal_ratio=geometry.temporal_ratio, base=fingerprint(base),
        family="wan", sampling=SamplingDefaults(steps=2, guidance=2.0, shift=4.0),
        trained=Trained(max_sequence_length=64, sizes=((64, 64, 8),)),
    )  # fmt: skip
    record = AdapterRecord(adaptation=info, patch_size=(1, 1, 1), lora=None, adds_condition=adds_condition)
    write_adapter(folder, moved, record, {}, ends_of(moved, backbone), torch.float32)
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return make_adapter(tmp_path_factory.mktemp("export") / "adapter")


def run(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline("a circle", generator=video_generator(0, 0), output_type="pt").frames


def test_an_adapter_finds_its_base_and_its_autoencoder_among_the_bundled_ones(adapter):
    pipeline = load_pipeline(adapter)
    assert pipeline.adaptation.sampling.steps == 2
    assert pipeline.scheduler.config.shift == 4.0
    frames = run(pipeline)
    assert frames.shape == (1, 8, 3, 64, 64)
    for model, options in (
        (adapter.parent, {}),
        ("shapes-base", {"adapter": adapter}),
        (bundled_pipelines()["shapes-base"], {"adapter": adapter.parent, "autoencoder": "shapes-dcae"}),
    ):
        assert torch.equal(run(load_pipeline(model, **options)), frames)
    loaded = DCVideoGenPipeline.from_pretrained("shapes-base", adapter=adapter)
    assert torch.equal(run(loaded), frames)


def test_an_adapter_that_adds_a_condition_makes_image_to_video_of_a_base_for_text(tmp_path):
    folder = make_adapter(tmp_path / "adapter", adds_condition=True)
    pipeline = load_pipeline(folder, task="i2v")
    assert type(pipeline) is DCVideoGenImageToVideoPipeline
    pipeline.set_progress_bar_config(disable=True)
    picture = torch.zeros(1, 3, 64, 64)
    assert pipeline(picture, "a circle", output_type="pt", num_inference_steps=1).frames.shape == (1, 8, 3, 64, 64)
    pipeline.save_pretrained(tmp_path / "whole")
    assert type(load_pipeline(tmp_path / "whole")) is DCVideoGenImageToVideoPipeline
    with pytest.raises(UserError, match="is a model for image to video, and text to video was asked for; give it an"):
        load_pipeline(folder, task="t2v")


def test_what_was_loaded_from_parts_is_saved_as_one_folder(adapter, tmp_path):
    pipeline = load_pipeline(adapter)
    frames = run(pipeline)
    pipeline.save_pretrained(tmp_path / "whole")
    assert torch.equal(run(load_pipeline(tmp_path / "whole")), frames)
    index = json.loads((tmp_path / "whole" / "model_index.json").read_text())
    assert index["autoencoder"] == ["dcvideogen.autoencoder.model", "AutoencoderDCV"]
    assert index["adaptation"]["latent_space_id"] == pipeline.autoencoder.config.latent_space_id


def test_the_autoencoder_of_another_latent_space_is_refused(adapter):
    with pytest.raises(UserError, match="the transformer works with latents of space"):
        load_pipeline(adapter, autoencoder="dcae-small-f32t4c128")


def test_models_that_are_none_are_refused(adapter, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for model, options, message in (
        ("nothing", {}, "no model 'nothing': neither a folder nor one of the bundled shapes-base"),
        (tmp_path / "file", {}, "is a file; a model is a folder"),
        ("shapes-base", {}, "works in its own latents; give an adapter"),
        ("shapes-base", {"adapter": tmp_path / "empty"}, "is no adapter: it has no adapter.json"),
        (tmp_path / "empty", {}, "is no model"),
        (adapter, {"task": "i2v"}, "is a model for text to video, and image to video was asked for"),
    ):
        with pytest.raises(UserError, match=message):
            load_pipeline(model, **options)
    monkeypatch.setattr(loading, "bundled_pipelines", dict)
    with pytest.raises(UserError, match="which is not bundled; give the base's folder as the model"):
        load_pipeline(adapter)


def test_a_broken_index_is_one_line(tmp_path):
    for content in ("{", "[]"):
        (tmp_path / "model_index.json").write_text(content)
        with pytest.raises(UserError, match=r"model_index\.json"):
            load_pipeline(tmp_path)


def test_bundled_names_and_folders_are_found(tmp_path):
    assert find_model("shapes-base") == bundled_pipelines()["shapes-base"]
    assert find_model(tmp_path) == tmp_path


def test_a_saved_pipeline_is_loaded_by_its_folder_alone(tmp_path):
    pipeline = tiny_pipeline()
    pipeline.save_pretrained(tmp_path / "a")
    difference = run(load_pipeline(tmp_path / "a")) - run(pipeline)
    assert difference.abs().max() < 1e-5  # weights are laid out otherwise


def test_libraries_show_no_bars_while_a_program_loads_and_theirs_are_as_before_afterwards(monkeypatch, capfd):
    base, bars = bundled_pipelines()["shapes-base"], (diffusers.utils.logging, transformers.utils.logging)
    for shown in (True, False):
        for one in bars:
            monkeypatch.setattr(one, "_tqdm_active", shown)
        with without_progress_bars():
            BaseTextToVideo(base)
        assert capfd.readouterr().err == ""
        assert [one.is_progress_bar_enabled() for one in bars] == [shown, shown]
    for one in bars:
        monkeypatch.setattr(one, "_tqdm_active", True)
    BaseTextToVideo(base)
    assert "Loading weights" in capfd.readouterr().err  # so there is something to hide


def test_a_device_is_named_with_one_thread_or_several(monkeypatch):
    for threads, named in ((1, "cpu, 1 thread"), (8, "cpu, 8 threads")):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert device_name(torch.device("cpu")) == named
