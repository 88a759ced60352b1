"""`dcvideogen info`: what a file or folder is."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from dcvideogen.cli.console import number, print_facts, rate
from dcvideogen.errors import UserError
from dcvideogen.weights import bundled_models

CHECKPOINT_SUFFIXES = (".pt", ".pth", ".ckpt")


def info(
    path: Annotated[
        str, typer.Argument(help="A video, image, folder of images, latents file, checkpoint, model or run folder.")
    ],
) -> None:
    """Say what a video, latents file, checkpoint, model folder or run folder is."""
    found = Path(path)
    if not found.exists():
        models = bundled_models()
        if path not in models:
            raise UserError(f"{path}: no such file, folder or bundled model ({', '.join(models) or 'none'})")
        found = models[path]
    for is_one, describe in KINDS:
        if is_one(found):
            title, facts = describe(found)
            print_facts(f"{path}: {title}", facts)
            return


def is_model(path: Path) -> bool:
    return (path / "config.json").is_file()


def describe_model(path: Path) -> tuple[str, dict[str, Any]]:
    from dcvideogen.autoencoder.loading import check_model_folder
    from dcvideogen.cli.describe import file_size, model_facts, model_on_meta

    check_model_folder(path)
    weights = sorted(path.glob("*.safetensors"))
    sizes = ", ".join(f"{file.name} {file_size(file)}" for file in weights)
    return "an autoencoder", {**model_facts(model_on_meta(path)), "dtypes": dtypes(weights), "weights": sizes}


def is_run(path: Path) -> bool:
    return (path / "run.json").is_file()


def describe_run(path: Path) -> tuple[str, dict[str, Any]]:
    run = read_json(path / "run.json")
    checkpoints = sorted(folder.parent.name for folder in path.glob("checkpoints/*/COMPLETE"))
    versions, metrics = run.get("versions"), run.get("metrics")
    return f"a run of {run.get('command', 'an unknown command')}", {
        "seed": run.get("seed"),
        "checkpoints": ", ".join(checkpoints) or None,
        "model": "model/" if is_model(path / "model") else None,
        "metrics": in_words(metrics) if metrics else None,
        "versions": in_words(versions) if versions else None,
    }


def is_results(path: Path) -> bool:
    return (path / "metrics.json").is_file()


def describe_results(path: Path) -> tuple[str, dict[str, Any]]:
    metrics = read_json(path / "metrics.json")
    try:
        return "results of reconstruct", {
            "input": metrics["input"],
            "model": metrics["model"],
            "clip": f"{metrics['num_frames']} frames of {metrics['width']}x{metrics['height']}",
            "PSNR": number(metrics["psnr_db"]["mean"], 2, " dB"),
            "SSIM": number(metrics["ssim"]["mean"], 4),
        }
    except (KeyError, TypeError) as error:
        raise UserError(f"{path / 'metrics.json'} is not one of `dcvideogen reconstruct` (no {error})") from error


def is_summary(path: Path) -> bool:
    return (path / "summary.json").is_file()


def describe_summary(path: Path) -> tuple[str, dict[str, Any]]:
    rows = read_json(path / "summary.json", list)
    try:
        return f"results of reconstruct for {len(rows)} inputs", {
            row["input"]: row.get("error") or number(row["psnr_db"], 2, " dB") for row in rows
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path / 'summary.json'} is not one of `dcvideogen reconstruct` ({error})") from error


def is_safetensors(path: Path) -> bool:
    return path.is_file() and path.suffix == ".safetensors"


def describe_safetensors(path: Path) -> tuple[str, dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    from dcvideogen.cli.describe import file_size
    from dcvideogen.data.latents_file import FORMAT, read_latents_info

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error})") from error
    size = {"dtypes": dtypes([path]), "file size": file_size(path)}
    if metadata.get("format") != FORMAT:
        return "a safetensors file, but no latents file", {"tensors": len(shapes), **size}
    latents = read_latents_info(path)
    return "latents of a clip", {
        "clip": f"{latents.num_frames} frames of {latents.width}x{latents.height}",
        "frames per second": rate(latents.fps),
        "latents": tuple(shapes["latents"]),
        "latent space": latents.latent_space_id,
        "model": latents.model,
        "padding": latents.padding,
        **size,
    }


def is_checkpoint(path: Path) -> bool:
    return path.is_file() and path.suffix in CHECKPOINT_SUFFIXES


def describe_checkpoint(path: Path) -> tuple[str, dict[str, Any]]:
    import math

    from dcvideogen.autoencoder.official import check_keys, infer_config, key_pairs, load_state_dict
    from dcvideogen.cli.describe import file_size

    tensors = load_state_dict(path)
    fields = infer_config(tensors)
    check_keys(tensors, (key for _, key in key_pairs(fields["layers_per_block"])))
    spatial, temporal = math.prod(fields["spatial_factors"]), math.prod(fields["temporal_factors"])
    channels = fields["latent_channels"]
    return "an official DC-AE-V checkpoint", {
        "compression": f"{3 * spatial**2 * temporal / channels:g} (f{spatial} t{temporal} c{channels})",
        "parameters": f"{sum(tensor.numel() for tensor in tensors.values()) / 1e6:.1f} M in {len(tensors)} tensors",
        "widths": " ".join(map(str, fields["block_out_channels"])),
        "blocks": " ".join(map(str, fields["layers_per_block"])),
        "file size": file_size(path),
        "next": "`dcvideogen convert` makes a model folder of it",
    }


def describe_video(path: Path) -> tuple[str, dict[str, Any]]:
    from dcvideogen.video import probe

    video = probe(path)
    extras = {
        f"turned by {video.rotation} degrees": video.rotation,
        "full range": video.full_range,
        "transparency": video.has_alpha,
        "sound (which is dropped)": video.has_audio,
    }
    return "pictures", {
        "format": f"{video.container}, {video.codec}, {video.pixel_format}, {video.bit_depth} bits",
        "size": f"{video.width}x{video.height}",
        "frames": video.num_frames if video.num_frames is not None else "not said by the file",
        "frames per second": rate(video.fps),
        "duration": None if video.duration_s is None else f"{video.duration_s:.2f} s",
        "also": ", ".join(name for name, there in extras.items() if there) or None,
    }


KINDS = (
    (is_model, describe_model),
    (is_run, describe_run),
    (is_results, describe_results),
    (is_summary, describe_summary),
    (is_safetensors, describe_safetensors),
    (is_checkpoint, describe_checkpoint),
    (lambda path: True, describe_video),
)


def read_json(path: Path, kind: type = dict) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable as JSON: {error}") from error
    if not isinstance(content, kind):
        raise UserError(f"{path} holds no JSON {'object' if kind is dict else 'list'}")
    return content


def in_words(values: object) -> str:
    if not isinstance(values, dict):
        return str(values)
    return ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()
    )


def dtypes(files: list[Path]) -> str:
    """Names of the tensors' types, from the headers alone."""
    from safetensors import safe_open

    found = set()
    for path in files:
        with safe_open(path, framework="pt") as file:
            found |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    return ", ".join(sorted(found))
