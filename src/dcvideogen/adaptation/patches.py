"""Latents <-> tokens: the numbers of one patch in the order in which a transformer's layers hold them."""

from __future__ import annotations

from torch import Tensor

from dcvideogen.errors import UserError

Patch = tuple[int, int, int]

# Where channels and the places inside a patch are after the latents were cut: (B, c, t', t, h', h, w', w).
AXES = {"c": 1, "t": 3, "h": 5, "w": 7}
# What every embedder of this field takes: a convolution's weight (D, C, pt, ph, pw), flattened.
EMBEDDER_ORDER = "cthw"


def token_grid(latents: Tensor, patch: Patch) -> tuple[int, int, int]:
    """(t', h', w') of latents (B, C, t, h, w). UserError where the patch does not divide them."""
    sizes = latents.shape[-3:]
    if any(size % step for size, step in zip(sizes, patch, strict=True)):
        raise UserError(
            f"latents of {_times(sizes)} (frames x height x width) came for patches of {_times(patch)}; "
            "only sizes that the patch divides are allowed; choose other sizes of the clips"
        )
    return tuple(size // step for size, step in zip(sizes, patch, strict=True))


def patchify(latents: Tensor, patch: Patch, order: str) -> Tensor:
    """(B, C, t, h, w) -> (B, t', h', w', C*pt*ph*pw). order: the axes of one patch, slowest first, such as "cthw"."""
    t, h, w = token_grid(latents, patch)
    cut = latents.reshape(*latents.shape[:2], t, patch[0], h, patch[1], w, patch[2])
    return cut.permute(0, 2, 4, 6, *(AXES[axis] for axis in order)).flatten(4)


def unpatchify(tokens: Tensor, patch: Patch, order: str) -> Tensor:
    """The inverse of `patchify`."""
    batch, t, h, w, numbers = tokens.shape
    sizes = {"c": numbers // (patch[0] * patch[1] * patch[2]), "t": patch[0], "h": patch[1], "w": patch[2]}
    cut = tokens.reshape(batch, t, h, w, *(sizes[axis] for axis in order))
    place = {axis: 4 + order.index(axis) for axis in order}
    whole = cut.permute(0, place["c"], 1, place["t"], 2, place["h"], 3, place["w"])
    return whole.reshape(batch, sizes["c"], t * patch[0], h * patch[1], w * patch[2])


def _times(sizes: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in sizes)
