"""Tensors without numbers that keep account of the memory they would take.

The autoencoder's own code runs on an `Outline` as it runs on a tensor: the account's high-water mark is what a run of
that size needs, for any size and without weights. Tensors on torch's meta device do the same, fifty times slower:
decoding by rows is a hundred thousand small operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

META = torch.device("meta")


class Account:
    """Bytes that are taken now (`live`) and were at most (`peak`). lazy: an empty buffer costs nothing until it is
    written, as on a CPU, where the system gives out pages when they are touched."""

    def __init__(self, *, lazy: bool = False) -> None:
        self.lazy = lazy
        self.live = self.peak = 0

    def take(self, size: int) -> None:
        self.live += size
        self.peak = max(self.peak, self.live)


class _Storage:
    __slots__ = ("account", "size", "taken")

    def __init__(self, account: Account, size: int, taken: int) -> None:
        self.account, self.size, self.taken = account, size, taken
        account.take(taken)

    def write(self, size: int) -> None:
        more = min(size, self.size - self.taken)
        self.taken += more
        self.account.take(more)

    def __del__(self) -> None:
        self.account.live -= self.taken


class Outline:
    """A shape, a dtype and a place, with what the layers of AutoencoderDCV call on a tensor, gradients off.

    Its device is `meta`, which stands for the one that computes; `.to("cpu")` is a copy in the host's account.
    Anything that is not listed here raises: code that starts to use it has to say what memory it takes.
    """

    __slots__ = ("_moved", "accounts", "device", "dtype", "shape", "storage")

    def __init__(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        accounts: tuple[Account, Account],
        *,
        device: torch.device = META,
        storage: _Storage | None = None,
        written: bool = True,
        moved: bool = False,
    ) -> None:
        """accounts: of the device and of the host. moved: axes were permuted, so joining them copies."""
        self.shape, self.dtype, self.accounts = tuple(shape), dtype, accounts
        self.device = device
        self._moved = moved
        if storage is None:
            size = math.prod(self.shape) * dtype.itemsize
            account = accounts[device.type == "cpu"]
            storage = _Storage(account, size, 0 if account.lazy and not written else size)
        self.storage = storage

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def numel(self) -> int:
        return math.prod(self.shape)

    def stride(self, _axis: int) -> int:
        return 0  # channels never next to each other; the other layout takes as much

    def _new(self, shape: Sequence[int], dtype: torch.dtype | None = None, *, written: bool = True) -> Outline:
        return Outline(shape, dtype or self.dtype, self.accounts, device=self.device, written=written)

    def _view(self, shape: Sequence[int], *, moved: bool | None = None) -> Outline:
        moved = self._moved if moved is None else moved
        return Outline(shape, self.dtype, self.accounts, device=self.device, storage=self.storage, moved=moved)

    def __getitem__(self, index: Any) -> Outline:
        index = index if isinstance(index, tuple) else (index,)
        if Ellipsis in index:
            at = index.index(Ellipsis)
            index = (*index[:at], *[slice(None)] * (self.ndim - len(index) + 1), *index[at + 1 :])
        index = (*index, *[slice(None)] * (self.ndim - len(index)))
        pairs = zip(index, self.shape, strict=True)
        return self._view([len(range(*part.indices(size))) for part, size in pairs if isinstance(part, slice)])

    def __setitem__(self, index: Any, value: Outline) -> None:
        if value.storage is not self.storage:
            self.storage.write(value.numel() * self.dtype.itemsize)

    def narrow(self, dim: int, start: int, length: int) -> Outline:
        return self.split(self.shape[dim], dim)[0]._view(
            [length if axis == dim % self.ndim else size for axis, size in enumerate(self.shape)]
        )

    def split(self, size: int, dim: int) -> list[Outline]:
        before, after = self.shape[: dim % self.ndim], self.shape[dim % self.ndim + 1 :]
        total = self.shape[dim]
        return [self._view([*before, min(size, total - start), *after]) for start in range(0, total, size)]

    def unsqueeze(self, dim: int) -> Outline:
        return self._view([*self.shape[:dim], 1, *self.shape[dim:]])

    def unflatten(self, dim: int, sizes: Sequence[int]) -> Outline:
        known = math.prod(size for size in sizes if size != -1)
        sizes = [self.shape[dim] // known if size == -1 else size for size in sizes]
        return self._view([*self.shape[:dim], *sizes, *self.shape[dim + 1 :]])

    def permute(self, *order: int) -> Outline:
        return self._view([self.shape[axis] for axis in order], moved=True)

    def flatten(self, start: int, end: int) -> Outline:
        joined = math.prod(self.shape[start : end + 1])
        shape = [*self.shape[:start], joined, *self.shape[end + 1 :]]
        return self._new(shape) if self._moved else self._view(shape)

    def mean(self, dim: int) -> Outline:
        return self._new([*self.shape[:dim], *self.shape[dim + 1 :]])

    def expand(self, *shape: int) -> Outline:
        return self._view(shape)

    def repeat(self, repeats: Sequence[int]) -> Outline:
        return self._new([size * count for size, count in zip(self.shape, repeats, strict=True)])

    def new_empty(self, *shape: int) -> Outline:
        return self._new(shape, written=False)

    def new_zeros(self, *shape: int) -> Outline:
        return self._new(shape)

    def clone(self) -> Outline:
        return self._new(self.shape)

    def to(self, where: torch.dtype | torch.device | str) -> Outline:
        if isinstance(where, torch.dtype):
            return self if where == self.dtype else self._new(self.shape, where)
        device = torch.device(where)
        return self if device == self.device else Outline(self.shape, self.dtype, self.accounts, device=device)

    def _fresh(self, *_others: Any) -> Outline:
        return self._new(self.shape)

    square = __add__ = __sub__ = __mul__ = __truediv__ = _fresh

    def _itself(self, *_others: Any) -> Outline:
        return self

    add_ = mul_ = __iadd__ = detach = _itself

    @classmethod
    def __torch_function__(
        cls, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Outline:
        if func not in _FUNCTIONS:
            raise NotImplementedError(f"what {func} takes is not known: add it to dcvideogen.pipelines.memory_outline")
        return _FUNCTIONS[func](*args, **(kwargs or {}))


def _cat(pieces: Sequence[Outline], dim: int) -> Outline:
    shape = list(pieces[0].shape)
    shape[dim] = sum(piece.shape[dim] for piece in pieces)
    return pieces[0]._new(shape)


def _stack(pieces: Sequence[Outline], dim: int) -> Outline:
    shape = pieces[0].shape
    return pieces[0]._new([*shape[:dim], len(pieces), *shape[dim:]])


def _convolution(x: Outline, weight: Any, bias: Any = None, padding: Sequence[int] = (), **_: Any) -> Outline:
    """Stride 1, any number of axes."""
    sides = zip(x.shape[2:], weight.shape[2:], padding, strict=True)
    return x._new([x.shape[0], weight.shape[0], *[size + 2 * pad - kernel + 1 for size, kernel, pad in sides]])


def _vector_norm(x: Outline, dim: int, keepdim: bool, dtype: torch.dtype) -> Outline:
    return x._new([1 if axis == dim and keepdim else size for axis, size in enumerate(x.shape)], dtype)


def _silu(x: Outline, inplace: bool) -> Outline:
    return x if inplace else x.clone()


_FUNCTIONS: dict[Callable, Callable[..., Outline]] = {
    torch.cat: _cat,
    torch.stack: _stack,
    F.conv2d: _convolution,
    F.conv3d: _convolution,
    torch.linalg.vector_norm: _vector_norm,
    torch.rsqrt: Outline.clone,
    F.silu: _silu,
}
