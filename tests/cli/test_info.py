import json

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from dcvideogen.autoencoder.model import AutoencoderDCV


@pytest.fixture
def info(dcvideogen):
    def call(path) -> str:
        result = dcvideogen("info", path)
        assert result.code == 0, result.err
        return " ".join(result.out.split())

    return call


def test_a_video(clip, info):
    words = info(clip)
    assert "clip.mkv: pictures" in words
    for fact in ("ffv1", "size 64x48", "29.970 (30000/1001)"):
        assert fact in words


def test_a_latents_file_and_another_safetensors_file(clip, info, dcvideogen, model_folder, tmp_path):
    path = tmp_path / "clip.safetensors"
    dcvideogen("encode", clip, "-o", path, "--model", model_folder)
    words = info(path)
    for fact in ("latents of a clip", "13 frames of 64x48", "(16, 4, 2, 2)", "tiny-space", "model tiny", "F32"):
        assert fact in words
    save_file({"a": torch.zeros(3), "b": torch.zeros(3).half()}, path)
    assert "no latents file tensors 2 dtypes F16, F32" in info(path)


def test_a_model_folder(info, model_folder):
    words = info(model_folder)
    for fact in ("an autoencoder", "compression 768 (f32 t4 c16)", "chunk 8 frames, chunk_causal", "tiny-space", "F32"):
        assert fact in words


def test_an_official_checkpoint_and_its_conversion(dcvideogen, info, refused, tiny, tmp_path):
    checkpoint, folder = tmp_path / "official.pt", tmp_path / "converted"
    tiny.to_official_checkpoint(checkpoint)
    words = info(checkpoint)
    assert "an official DC-AE-V checkpoint compression 768 (f32 t4 c16)" in words
    arguments = ["convert", checkpoint, "-o", folder]
    refused("no scaling factor is known", *arguments)
    assert not folder.exists()
    result = dcvideogen(*arguments, "--scaling-factor", 0.5, "--chunk-frames", 16)
    assert result.code == 0, result.err
    assert "an autoencoder" in result.out
    model = AutoencoderDCV.from_pretrained(folder)
    assert model.config.chunk_frames == 16
    assert list(model.config.latents_std) == [2.0]
    for name, value in tiny.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    assert [entry.name for entry in tmp_path.iterdir() if "partial" in entry.name] == []
    refused("not an empty folder", *arguments, "--scaling-factor", 1)
    refused("--scaling-factor inf came", *arguments, "--scaling-factor", "inf")


def test_a_full_disk_leaves_no_converted_folder(refused, tiny, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise SafetensorError("No space left on device")

    checkpoint, folder = tmp_path / "official.pt", tmp_path / "converted"
    tiny.to_official_checkpoint(checkpoint)
    monkeypatch.setattr("safetensors.torch.save_file", fail)
    refused(f"cannot write {folder}: No space left", "convert", checkpoint, "-o", folder, "--scaling-factor", 1)
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_a_checkpoint_that_cannot_be_converted_is_not_taken_for_one(refused, tiny, tmp_path):
    path = tmp_path / "official.pt"
    tiny.to_official_checkpoint(path)
    content = torch.load(path, weights_only=True)
    del content["model_state_dict"]["decoder.project_out.op_list.0.bias"]
    torch.save(content, path)
    refused("lacks 'decoder.project_out.op_list.0.bias'", "info", path)


def test_convert_refuses_what_is_no_checkpoint(refused, tmp_path):
    text = tmp_path / "official.pt"
    text.write_text("no weights")
    out = tmp_path / "out"
    refused("cannot be read", "convert", text, "-o", out)
    torch.save({"model_state_dict": {"weight": torch.zeros(2)}}, text)
    refused("not a DC-AE-V checkpoint", "convert", text, "-o", out)
    refused("no such file", "convert", tmp_path / "none.pt", "-o", out)
    refused("a folder", "convert", tmp_path, "-o", out)
    refused("--scaling-factor 0", "convert", text, "-o", out, "--scaling-factor", 0)
    refused("--chunk-frames 0", "convert", text, "-o", out, "--chunk-frames", 0)
    assert not out.exists()


def test_a_run_folder_and_results_of_reconstruct(clip, info, refused, dcvideogen, model_folder, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints" / "step-00000010").mkdir(parents=True)
    (run / "checkpoints" / "step-00000010" / "COMPLETE").touch()
    record = {"command": "train-autoencoder", "seed": 7, "metrics": {"psnr": 25.5}, "versions": {"torch": "2.13"}}
    (run / "run.json").write_text(json.dumps(record))
    words = info(run)
    for fact in ("a run of train-autoencoder", "seed 7", "step-00000010", "psnr 25.5", "torch 2.13"):
        assert fact in words
    dcvideogen("reconstruct", clip, "-o", tmp_path / "out", "--model", model_folder, "--num-frames", 2)
    assert "results of reconstruct input clip.mkv model tiny clip 2 frames of 64x48" in info(tmp_path / "out")
    both = tmp_path / "both"
    dcvideogen("reconstruct", clip, clip, "-o", both, "--model", model_folder, "--num-frames", 2)
    assert "results of reconstruct for 2 inputs clip.mkv" in info(both)
    (both / "summary.json").write_text("{}")
    refused("holds no JSON list", "info", both)


def test_what_cannot_be_told_is_one_line(refused, broken_clip, tmp_path):
    refused("no such file, folder or bundled model", "info", tmp_path / "none")
    (tmp_path / "notes.txt").write_text("text")
    refused("notes.txt", "info", tmp_path / "notes.txt")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused("empty", "info", empty)
    (tmp_path / "x.safetensors").write_bytes(b"broken")
    refused("not a whole safetensors file", "info", tmp_path / "x.safetensors")
    (tmp_path / "x.pt").write_bytes(b"broken")
    refused("cannot be read", "info", tmp_path / "x.pt")
    (empty / "run.json").write_text("{")
    refused("not readable as JSON", "info", empty)
    (empty / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    refused("AutoencoderKL", "info", empty)
