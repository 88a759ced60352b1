"""What one clip's way through an encoder or a decoder remembers between pieces.

A clip is run in chunks of frames and, when memory is short, each chunk in strips of rows. Every block is called as
`block(x, state, last)`: `x` holds the next rows of all frames of the chunk (possibly none), `last` says that
the bottom of the picture is in this piece. A fresh state starts a clip; the same state goes on with the next chunk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass
class PastFrames:
    """The last frames of a conv's input in the previous chunk, as the strips of rows in which they came.

    Strips (B, C, frames, rows, W) are dropped as soon as no later window needs them, so that the frames of two
    chunks are never held at once.
    """

    strips: deque[Tensor] = field(default_factory=deque)
    top: int = 0

    def rows(self, start: int, stop: int, device: torch.device) -> Tensor:
        """Rows start..stop, after forgetting all strips that end above `start`."""
        while self.top + self.strips[0].shape[-2] <= start:
            self.top += self.strips.popleft().shape[-2]
        pieces, top = [], self.top
        for strip in self.strips:
            if top >= stop:
                break
            pieces.append(strip[..., max(start - top, 0) : stop - top, :].to(device))
            top += strip.shape[-2]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-2)


@dataclass
class ConvState:
    """What one convolution remembers.

    rows: the input rows from one above the next output row on (None at the top of the picture).
    emitted: how many output rows of this chunk it has delivered.
    past, upcoming: the frames before this chunk, and those that the next chunk will see as its past.
    """

    rows: Tensor | None = None
    emitted: int = 0
    past: PastFrames | None = None
    upcoming: PastFrames | None = None

    def finish_chunk(self) -> None:
        self.rows, self.emitted = None, 0
        self.past, self.upcoming = self.upcoming, None


class StreamState:
    """The memory of one clip on one encoder or decoder.

    offload: keep the frames between chunks in host memory.
    past_gradient: whether gradients of a chunk flow through the kept frames into the chunks before it.
    keep_frames: set to False for a clip's last chunk, which has no successor to remember anything for.
    """

    def __init__(self, offload: bool = False, past_gradient: bool = True) -> None:
        self.offload = offload
        self.past_gradient = past_gradient
        self.keep_frames = True
        self._convs: dict[nn.Module, ConvState] = {}
        self._waiting: dict[nn.Module, Tensor] = {}

    def conv(self, module: nn.Module) -> ConvState:
        return self._convs.setdefault(module, ConvState())

    def keep(self, memory: ConvState, frames: Tensor) -> None:
        """Stores rows of the frames that the next chunk needs; a copy, so that the chunk itself can be freed."""
        if memory.upcoming is None:
            memory.upcoming = PastFrames()
        offload = self.offload and frames.device.type != "cpu"
        if not self.past_gradient:
            frames = frames.detach()
        memory.upcoming.strips.append(frames.to("cpu") if offload else frames.clone())

    def past_frames(self, convs: Sequence[nn.Module]) -> list[Tensor | None]:
        """Between whole chunks: what these convs remember, (B, C, frames, H, W) each."""
        pasts = [self.conv(conv).past for conv in convs]
        return [None if past is None else past.strips[0] for past in pasts]

    def set_past_frames(self, convs: Sequence[nn.Module], frames: Sequence[Tensor | None]) -> None:
        for conv, strip in zip(convs, frames, strict=True):
            self.conv(conv).past = None if strip is None else PastFrames(deque([strip]))

    def begin_chunk(self, convs: Sequence[nn.Module], frames: Sequence[Tensor | None]) -> StreamState:
        """A new state, run like this one, in which these convs stand before a whole chunk and remember `frames`."""
        state = StreamState(self.offload, self.past_gradient)
        state.keep_frames = self.keep_frames
        state.set_past_frames(convs, frames)
        return state

    def num_waiting(self, key: nn.Module) -> int:
        waiting = self._waiting.get(key)
        return 0 if waiting is None else waiting.shape[-2]

    def take(self, key: nn.Module, x: Tensor, num_rows: int) -> Tensor:
        """Appends `x` to the rows that wait under `key` and takes the first `num_rows` of them."""
        waiting = self._waiting.pop(key, None)
        if waiting is not None:
            x = torch.cat([waiting, x], dim=-2)
        if num_rows == x.shape[-2]:
            return x
        self._waiting[key] = x[..., num_rows:, :].clone()
        return x[..., :num_rows, :]
