import pytest
import torch

from dcvideogen.autoencoder.presets import PRESETS
from dcvideogen.cli import doctor
from dcvideogen.weights import bundled_models, bundled_pipelines


def test_models_lists_bundled_models_and_every_preset_with_its_size(dcvideogen):
    result = dcvideogen("models")
    assert result.code == 0
    rows = {line.split()[0]: line.split()[1:] for line in result.out.splitlines() if line.split()}
    assert set(PRESETS) | set(bundled_models()) | set(bundled_pipelines()) <= set(rows)
    assert rows["f32t4c32"] == ["384", "32", "40", "917", "M", "1222", "M"]
    assert rows["f64t4c128"][:2] == ["384", "128"]


def test_doctor_looks_at_everything(dcvideogen):
    result = dcvideogen("doctor")
    assert result.code in (0, 1)
    for what in (
        "Python",
        "torch",
        "device",
        "matmul bfloat16 cpu",
        "conv3d float32 cpu",
        "conv3d bfloat16 cpu",
        "memory",
        "libavcodec",
    ):
        assert what in result.out
    assert "ok       conv3d float32 cpu" in result.out


def test_a_matrix_product_that_ends_its_process_is_told_with_what_helps():
    assert doctor.judge_matmul(0) == (doctor.OK, "runs, and is right")
    verdict, words = doctor.judge_matmul(-4)
    assert verdict == doctor.BROKEN
    assert "illegal instruction" in words
    assert "ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16" in words


def test_doctor_fails_when_a_convolution_is_wrong(dcvideogen, monkeypatch):
    right = torch.nn.functional.conv3d

    def wrong(video, weight, padding):
        result = right(video, weight, padding=padding)
        return result * 1.05 if video.dtype == torch.bfloat16 else result

    monkeypatch.setattr(torch.nn.functional, "conv3d", wrong)
    result = dcvideogen("doctor")
    assert result.code == 1
    assert "broken   conv3d bfloat16 cpu" in result.out
    assert "ok       conv3d float32 cpu" in result.out
    assert "conv3d bfloat16 cpu" in result.err


def test_doctor_names_weights_whose_checksum_is_not_the_recorded_one(dcvideogen, monkeypatch, tmp_path):
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "model.safetensors").write_bytes(b"damaged")
    (tmp_path / "checksums.json").write_text('{"small/model.safetensors": "0"}')
    monkeypatch.setattr("dcvideogen.weights.FOLDER", tmp_path)
    monkeypatch.setattr("dcvideogen.weights.CHECKSUMS", tmp_path / "checksums.json")
    result = dcvideogen("doctor")
    assert result.code == 1
    assert "broken   weights small/model.safetensors" in result.out


@pytest.mark.parametrize(
    ("version", "verdict"),
    [("2.13.0+cpu", "ok"), ("2.11.0a0+git", "ok"), ("2.10.1", "warning"), ("2.9.0+cu128", "warning")],
)
def test_torch_versions_are_judged(version, verdict):
    assert doctor.judge_torch(version)[0] == verdict
    assert ("many times the memory" in doctor.judge_torch(version)[1]) == version.startswith("2.9.0")


@pytest.mark.parametrize(
    ("version", "verdict"),
    [(90701, "ok"), (90800, "warning"), (91002, "warning"), (91100, "ok"), (None, "broken")],
)
def test_cudnn_versions_are_judged(version, verdict):
    assert doctor.judge_cudnn(version)[0] == verdict


@pytest.mark.parametrize(
    ("arguments", "verdict"),
    [
        (("bfloat16", "cuda", 0.002, 1.5), "ok"),
        (("bfloat16", "cuda", 0.002, 28.0), "warning"),
        (("bfloat16", "cuda", 0.3, 1.5), "broken"),
        (("float32", "cuda", 5e-4, 1.0), "ok"),
        (("float32", "cpu", 5e-4, None), "broken"),
        (("float32", "cpu", float("nan"), None), "broken"),
    ],
)
def test_convolutions_are_judged_by_error_and_memory(arguments, verdict):
    assert doctor.judge_convolution(*arguments)[0] == verdict
