"""AutoencoderDCV: the deep compression video autoencoder DC-AE-V (DC-VideoGen, arXiv 2509.25182)."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dcvideogen.autoencoder import config as checks
from dcvideogen.autoencoder.chunks import cut_into_chunks, first_frames
from dcvideogen.autoencoder.inputs import check_crop, check_latents, check_rows_per_step, check_video
from dcvideogen.autoencoder.networks import Decoder, Encoder
from dcvideogen.autoencoder.state import StreamState
from dcvideogen.errors import UserError
from dcvideogen.geometry import Geometry, pad_end, pad_video


class AutoencoderDCV(ModelMixin, ConfigMixin):
    """Video (B, 3, T, H, W) in [-1, 1] <-> normalised latents (B, C, t, h, w).

    Time is cut into chunks: inside a chunk information flows both ways, across chunks only forward. Encoding or
    decoding chunk by chunk with a state gives what the whole clip gives, so nothing but one chunk is ever in memory.
    The model owns its normalisation: latents go in and come out with the mean and std of the config taken out.

    Parameters (all of them plain fields of config.json):
        latent_channels: C.
        block_out_channels, layers_per_block: width and residual blocks per stage, pixel side first.
        spatial_factors, temporal_factors: step into each stage, from the stage before it (from RGB for the first).
        chunk_frames: frames per chunk, a multiple of the temporal ratio. Unused for the result when causal.
        temporal_mode: "chunk_causal", "causal" or "non_causal" (then the whole clip is one chunk).
        partial_chunk: how a last chunk that is not full is run: "shorter" as it is; "fill" with its last frame (or
            latent) repeated up to a full chunk, for weights that only saw full chunks.
        posterior: "deterministic", or "gaussian" (the encoder predicts mean and log-variance; `encode` gives the mean).
        latents_mean, latents_std: one number, or one per channel. An official scaling factor s is latents_std = 1/s.
        latent_space_id: the name of the latent space; what works on latents carries it and is checked by it.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 32,
        block_out_channels: tuple[int, ...] = (256, 512, 512, 1024, 1024, 1024),
        layers_per_block: tuple[int, ...] = (5, 10, 4, 4, 4, 4),
        spatial_factors: tuple[int, ...] = (2, 2, 2, 2, 2, 1),
        temporal_factors: tuple[int, ...] = (1, 1, 1, 1, 1, 4),
        chunk_frames: int = 40,
        temporal_mode: str = "chunk_causal",
        partial_chunk: str = "shorter",
        posterior: str = "deterministic",
        latents_mean: tuple[float, ...] = (0.0,),
        latents_std: tuple[float, ...] = (1.0,),
        latent_space_id: str | None = None,
    ) -> None:
        super().__init__()
        checks.check_config(self.config)
        self.geometry = Geometry(math.prod(spatial_factors), math.prod(temporal_factors), chunk_frames)
        stages = (block_out_channels, layers_per_block, spatial_factors, temporal_factors, temporal_mode)
        moments = 2 if posterior == "gaussian" else 1
        self.encoder = Encoder(moments * latent_channels, *stages)
        self.decoder = Decoder(latent_channels, *stages)

    def enable_gradient_checkpointing(self, gradient_checkpointing_func: Callable | None = None) -> None:
        """From now on layers run again in the backward pass; see `dcvideogen.autoencoder.networks.run_checkpointed`.

        gradient_checkpointing_func: called as f(function, *arguments); PyTorch's own when None.
        """
        # Not diffusers' default, which torch.compile cannot trace; nothing here draws random numbers.
        own = functools.partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
        super().enable_gradient_checkpointing(gradient_checkpointing_func or own)

    @property
    def compression_ratio(self) -> float:
        """Numbers in the video per number in the latents: 3 * f^2 * t / c."""
        return 3 * self.geometry.spatial_ratio**2 * self.geometry.temporal_ratio / self.config.latent_channels

    @apply_forward_hook
    def encode(
        self,
        video: Tensor,
        *,
        rows_per_step: int | None = None,
        offload_state: bool = False,
        past_gradient: bool = True,
    ) -> Tensor:
        """Video (B, 3, T, H, W) in [-1, 1], any T, H, W >= 1 -> latents (B, C, ceil(T/4), ceil(H/f), ceil(W/f)).

        rows_per_step: run each chunk this many pixel rows at a time; the same result in less memory.
        offload_state: keep the frames between chunks in host memory.
        past_gradient: let gradients flow through the frames kept between chunks into earlier chunks; without, each
            chunk's weights learn from that chunk alone. The result is the same.
        """
        check_video(video)
        state = StreamState(offload_state, past_gradient)
        return torch.cat(list(self._encode([video], video.shape[2], rows_per_step, state)), dim=2)

    @apply_forward_hook
    def encode_moments(self, video: Tensor, *, past_gradient: bool = True) -> tuple[Tensor, Tensor]:
        """Video as for `encode` -> mean and log-variance of a Gaussian posterior, both (B, C, t, h, w).

        The mean is what `encode` gives. The log-variance is that of the same normalised latents: the network's own,
        held to (-30, 20) as in the latent diffusion autoencoders (arXiv 2112.10752), less 2 log latents_std.
        Raises UserError where the posterior is deterministic.
        """
        if self.config.posterior != "gaussian":
            raise UserError(
                f"this autoencoder's posterior is {self.config.posterior}: it has no log-variance; use encode, or a "
                'model with posterior "gaussian"'
            )
        check_video(video)
        state = StreamState(past_gradient=past_gradient)
        moments = torch.cat(list(self._moments([video], video.shape[2], None, state)), dim=2)
        mean, logvar = moments.chunk(2, dim=1)
        return self._normalise(mean), logvar.clamp(-30, 20) - 2 * self._statistics("latents_std", logvar).log()

    @apply_forward_hook
    def decode(
        self,
        latents: Tensor,
        *,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        rows_per_step: int | None = None,
        offload_state: bool = False,
        past_gradient: bool = True,
    ) -> Tensor:
        """Latents (B, C, t, h, w) -> video (B, 3, 4t, f*h, f*w) in about [-1, 1], cropped to the given sizes."""
        check_latents(latents, self.config.latent_channels)
        check_crop(latents, self.geometry, height, width)
        available = self.geometry.num_video_frames(latents.shape[2])
        if num_frames is not None and not 1 <= num_frames <= available:
            raise UserError(f"num_frames is {num_frames}; these latents hold 1 to {available} frames")
        state = StreamState(offload_state, past_gradient)
        pieces = self._decode([latents], latents.shape[2], height, width, rows_per_step, state)
        return torch.cat(list(pieces), dim=2)[:, :, :num_frames]

    def encode_stream(
        self, videos: Iterable[Tensor], *, rows_per_step: int | None = None, offload_state: bool = False
    ) -> Iterator[Tensor]:
        """Pieces of one video (B, 3, any, H, W) in, latents of a chunk out as soon as it is complete or the input ends.

        Joined along time they equal `encode` of the joined pieces.
        """
        self._check_streamable()
        return self._encode(videos, None, rows_per_step, StreamState(offload_state))

    def decode_stream(
        self,
        latents: Iterable[Tensor],
        *,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        rows_per_step: int | None = None,
        offload_state: bool = False,
    ) -> Iterator[Tensor]:
        """Pieces of latents (B, C, any, h, w) in, frames of a chunk out; joined they equal one `decode`."""
        self._check_streamable()
        if num_frames is not None and num_frames < 1:
            raise UserError(f"num_frames is {num_frames}; at least 1 is allowed, or None for all")
        videos = self._decode(latents, None, height, width, rows_per_step, StreamState(offload_state))
        return videos if num_frames is None else first_frames(videos, num_frames)

    def forward(self, video: Tensor, *, past_gradient: bool = True) -> Tensor:
        """Reconstruction of a video, of its own size."""
        latents = self.encode(video, past_gradient=past_gradient)
        num_frames, height, width = video.shape[2:]
        return self.decode(latents, num_frames=num_frames, height=height, width=width, past_gradient=past_gradient)

    def _encode(
        self, videos: Iterable[Tensor], total: int | None, rows_per_step: int | None, state: StreamState
    ) -> Iterator[Tensor]:
        for moments in self._moments(videos, total, rows_per_step, state):
            yield self._normalise(moments[:, : self.config.latent_channels])

    def _moments(
        self, videos: Iterable[Tensor], total: int | None, rows_per_step: int | None, state: StreamState
    ) -> Iterator[Tensor]:
        """What the encoder gives for each chunk: unscaled latents, and after them their log-variance if it has one."""
        check_rows_per_step(rows_per_step)
        length = self.geometry.chunk_frames
        for chunk, is_last in cut_into_chunks(videos, self._chunk_length(length, total), total):
            check_video(chunk)
            state.keep_frames = not is_last
            num_frames = chunk.shape[2]
            padded = length if self._fills(num_frames, length) else self.geometry.padded_frames(num_frames)
            padded_size = self.geometry.padded_size(*chunk.shape[3:])
            chunk = pad_video(chunk.to(self.dtype), *padded_size, padded)
            moments = self.encoder(chunk, state, rows_per_step)
            yield moments[:, :, : self.geometry.num_latent_frames(num_frames)]

    def _normalise(self, latents: Tensor) -> Tensor:
        return (latents - self._statistics("latents_mean", latents)) / self._statistics("latents_std", latents)

    def _decode(
        self,
        latents: Iterable[Tensor],
        total: int | None,
        height: int | None,
        width: int | None,
        rows_per_step: int | None,
        state: StreamState,
    ) -> Iterator[Tensor]:
        check_rows_per_step(rows_per_step)
        length = self.geometry.chunk_latent_frames
        for piece, is_last in cut_into_chunks(latents, self._chunk_length(length, total), total):
            check_latents(piece, self.config.latent_channels)
            check_crop(piece, self.geometry, height, width)
            state.keep_frames = not is_last
            num_frames = self.geometry.num_video_frames(piece.shape[2])
            chunk = pad_end(piece, 2, length) if self._fills(piece.shape[2], length) else piece
            chunk = chunk.to(self.dtype)
            chunk = chunk * self._statistics("latents_std", chunk) + self._statistics("latents_mean", chunk)
            # Without a name: the frames that were given out are not held while the next ones are made.
            yield self.decoder(chunk, state, rows_per_step)[:, :, :num_frames, :height, :width]

    def _chunk_length(self, length: int, total: int | None) -> int:
        """A non-causal clip is one chunk; for the two other modes `length` is what is run at a time."""
        return total if self.config.temporal_mode == "non_causal" and total is not None else length

    def _fills(self, num_frames: int, length: int) -> bool:
        """Whether a piece is filled up; where chunks do not matter there is nothing to fill."""
        config = self.config
        return config.partial_chunk == "fill" and config.temporal_mode == "chunk_causal" and num_frames < length

    def _statistics(self, name: str, like: Tensor) -> Tensor:
        return torch.tensor(getattr(self.config, name), dtype=like.dtype, device=like.device).view(1, -1, 1, 1, 1)

    def _check_streamable(self) -> None:
        if self.config.temporal_mode == "non_causal":
            raise UserError(
                "a non_causal autoencoder cannot stream: its first latents depend on the last frames; "
                "use encode and decode, or a chunk_causal or causal model"
            )

    def fingerprint(self) -> str:
        """A name for the latent space: a digest of the encoder's weights (as fp16) and of the normalisation."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.encoder.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().to("cpu", torch.float16).contiguous().view(torch.uint8).numpy())
        for field in ("latent_channels", "chunk_frames", "temporal_mode", "latents_mean", "latents_std"):
            value = getattr(self.config, field)
            # Tuples have become lists where the configuration was read from a file.
            digest.update(f"{field}={tuple(value) if isinstance(value, list) else value}".encode())
        return digest.hexdigest()[:16]

    @classmethod
    def from_official_checkpoint(
        cls, path: str | Path, scaling_factor: float | None = None, chunk_frames: int = 40
    ) -> AutoencoderDCV:
        """Reads one of the authors' `.pt` files; see `dcvideogen.autoencoder.official`."""
        from dcvideogen.autoencoder.official import check_shapes, read_official_checkpoint

        fields, state_dict = read_official_checkpoint(path, scaling_factor, chunk_frames)
        with torch.device("meta"):
            model = cls(**fields)
        check_shapes(model, state_dict)
        model.load_state_dict(state_dict, strict=True, assign=True)
        model.register_to_config(latent_space_id=model.fingerprint())
        return model.eval()

    def to_official_checkpoint(self, path: str | Path) -> None:
        """Writes the weights in the authors' layout."""
        from dcvideogen.autoencoder.official import write_official_checkpoint

        write_official_checkpoint(self, path)
