"""One latents file: the latents of one clip in safetensors, with what is needed to get the clip back."""

import json
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dcvideogen.errors import UserError
from dcvideogen.files import whole_file

FORMAT = "dcvideogen.latents/1"
PADDING = "replicate-end"  # how geometry.pad_video fills up to a whole latent; the crop is a plain slice
SUFFIX = ".safetensors"
_HINT = "`dcvideogen encode` writes one"


@dataclass(frozen=True)
class LatentsInfo:
    """What a latents file says beside the latents.

    height, width, num_frames: of the clip, before padding. fps: frames per second. latent_space_id: the latent space,
    which a decoder must share. model: the name of the model that encoded, or that decodes what was generated. padding:
    how the clip was filled up. generation: of latents that were generated, what they can be generated from again, as
    plain JSON values (prompt, negative_prompt, seed, index, steps, guidance, scheduler, shift, model, ...); decoding
    does not look at it.
    """

    height: int
    width: int
    num_frames: int
    fps: Fraction
    latent_space_id: str
    model: str
    padding: str = PADDING
    generation: dict[str, Any] | None = field(default=None, hash=False)


def write_latents(path: str | Path, latents: Tensor, info: LatentsInfo) -> None:
    """Writes latents (C, t, h, w), any float type, to a temporary name beside `path`, then renames it.

    Raises UserError when the suffix is not .safetensors; ValueError or TypeError for a `generation` that is not plain
    JSON values.
    """
    path = check_suffix(Path(path))
    if latents.ndim != 4 or 0 in latents.shape or not latents.is_floating_point():
        raise ValueError(f"latents of shape {tuple(latents.shape)}, {latents.dtype}; (C, t, h, w), float is allowed")
    metadata = {
        "format": FORMAT,
        "height": str(info.height),
        "width": str(info.width),
        "num_frames": str(info.num_frames),
        "fps": f"{info.fps.numerator}/{info.fps.denominator}",
        "padding": info.padding,
        "latent_space_id": info.latent_space_id,
        "model": info.model,
    }
    if info.generation is not None:
        metadata["generation"] = json.dumps(info.generation, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        # Not save_file, which lets nobody but the owner read the file, whatever the umask says.
        temporary.write_bytes(save({"latents": latents.contiguous().cpu()}, metadata=metadata))


def read_latents(path: str | Path) -> tuple[Tensor, LatentsInfo]:
    """Latents (C, t, h, w) as they were written, and what the file says about them.

    Raises UserError for a file that is missing, broken, or no latents file of this format.
    """
    info = read_latents_info(path)
    try:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor("latents"), info
    except SafetensorError as error:
        raise UserError(f"{path}: broken ({error}); encode the clip again") from error


def read_latents_info(path: str | Path) -> LatentsInfo:
    """What the file says, without its latents; errors as in `read_latents`."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}; give a latents file; {_HINT}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata, names = file.metadata() or {}, list(file.keys())
            shape = file.get_slice("latents").get_shape() if "latents" in names else None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); give a latents file; {_HINT}") from error
    if metadata.get("format") != FORMAT:
        found = f"format {metadata['format']!r}" if "format" in metadata else "no format entry"
        raise UserError(f"{path}: a safetensors file with {found}; {FORMAT!r} is allowed; {_HINT}")
    if names != ["latents"] or len(shape) != 4 or 0 in shape:
        raise UserError(f"{path}: holds {names}, shape {shape}; one tensor 'latents' (C, t, h, w) is allowed")
    return _parse(path, metadata)


def check_suffix(path: Path) -> Path:
    """The path itself; UserError unless it ends in .safetensors."""
    if path.suffix != SUFFIX:
        raise UserError(f"latents cannot be written to {path.name!r}; a name that ends in {SUFFIX} is allowed")
    return path


def _parse(path: Path, metadata: dict[str, str]) -> LatentsInfo:
    try:
        info = LatentsInfo(
            height=int(metadata["height"]),
            width=int(metadata["width"]),
            num_frames=int(metadata["num_frames"]),
            fps=Fraction(metadata["fps"]),
            latent_space_id=metadata["latent_space_id"],
            model=metadata["model"],
            padding=metadata["padding"],
            generation=json.loads(metadata.get("generation", "null")),
        )
    except KeyError as error:
        raise UserError(f"{path}: its metadata lack {error.args[0]!r}; encode the clip again") from None
    except (ValueError, ZeroDivisionError) as error:
        raise UserError(f"{path}: its metadata are not readable ({error}); encode the clip again") from error
    if not isinstance(info.generation, dict | None):
        kind = type(info.generation).__name__
        raise UserError(f"{path}: its metadata hold a generation that is a {kind}; an object is allowed; make it again")
    if min(info.height, info.width, info.num_frames, info.fps) <= 0:
        raise UserError(
            f"{path}: its metadata say {info.num_frames} frames of {info.width}x{info.height} at {info.fps} fps; "
            "all must be above 0; encode the clip again"
        )
    if info.padding != PADDING:
        raise UserError(f"{path}: padding {info.padding!r}; {PADDING!r} is allowed; a newer version wrote it")
    return info
