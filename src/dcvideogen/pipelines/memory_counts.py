"""What the plans of one video are put together from: memory and time of each phase, each counted once."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dcvideogen.adaptation.device_speed import conv_speed, matmul_speed
from dcvideogen.pipelines.decoding import decode_needs
from dcvideogen.pipelines.memory_autoencoder import DecodePlan, Need, decode_need, encode_need
from dcvideogen.pipelines.memory_models import Asked, Networks

# Noisy latents, velocities and what a multistep scheduler remembers, in fp32.
LATENT_COPIES = 8
# Strips of so many rows take so much longer than whole chunks: measured for 16 (benchmarks/results/memory_cpu.md),
# in between for 64.
STRIPS_SLOWER = {None: 1.0, 64: 1.25, 16: 1.7}
LOOK_AHEAD = 50  # frames that the video's encoder holds, at 1.5 bytes per pixel


@dataclass(frozen=True)
class Rates:
    """Operations per second of linear layers and of convs; `found` says how that is known."""

    matmul: float
    conv: float
    found: str


def measure_rates(networks: Networks, device: torch.device) -> Rates:
    """Takes a fifth of a second on a CPU: one linear layer and one conv of the networks' widths."""
    words = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
    matmul, told = matmul_speed(networks.width, words[networks.transformers[0].dtype], device)
    channels = networks.autoencoder.config.block_out_channels[0]
    conv, told_conv = conv_speed(channels, words[networks.autoencoder.dtype], device)
    return Rates(matmul * 1e12, conv * 1e12, f"{told}, and {told_conv}")


class Counts:
    """Bytes of weights and activations, and seconds of computing, for one video on one kind of device.

    weights: bytes by component. activations: of one forward pass by its batch. latents: bytes while denoising.
    text_seconds, denoise_seconds: of all steps; forwards: passes of `asked.videos` in them.
    """

    def __init__(self, networks: Networks, asked: Asked, rates: Rates, *, on_cpu: bool) -> None:
        self.networks, self.asked, self.rates, self.on_cpu = networks, asked, rates, on_cpu
        self.weights = networks.weights
        self.text_activations = networks.text_activations(asked)
        self.passes = 2 if asked.guided else 1
        batches = {asked.videos, self.passes * asked.videos}
        self.activations = {batch: networks.transformer_activations(asked, batch) for batch in batches}
        grid = networks.latent_shape(asked)
        numbers = asked.videos * networks.autoencoder.config.latent_channels * grid[0] * grid[1] * grid[2]
        self.latents = LATENT_COPIES * torch.float32.itemsize * numbers
        self.forwards = asked.steps * self.passes
        self.text_seconds = networks.text_flops(asked) / rates.matmul
        self.denoise_seconds = networks.transformer_flops(asked) * self.forwards * asked.videos / rates.matmul
        self.encode_flops, self.decode_flops = networks.autoencoder_flops(asked)
        self.encoding: dict[DecodePlan, Need] = {}
        self.decoding = decode_needs(networks.autoencoder, *self._video, asked.videos, on_cpu=on_cpu)

    @property
    def _video(self) -> tuple[int, int, int]:
        return self.asked.height, self.asked.width, self.asked.num_frames

    def decode(self, plan: DecodePlan) -> Need:
        found = self.decoding.get(plan)
        if found is None:
            found = decode_need(self.networks.autoencoder, plan, *self._video, self.asked.videos, on_cpu=self.on_cpu)
            self.decoding[plan] = found
        return found

    def decode_seconds(self, plan: DecodePlan) -> float:
        return self.asked.videos * self.decode_flops / self.rates.conv * STRIPS_SLOWER.get(plan.rows_per_step, 1.7)

    def encode(self, plan: DecodePlan) -> Need:
        """Of an image-to-video model's condition: a clip that is the image and then nothing, in fp32 at first."""
        found = self.encoding.get(plan)
        if found is None:
            found = encode_need(self.networks.autoencoder, plan, *self._video, on_cpu=self.on_cpu)
            if self.networks.autoencoder.dtype != torch.float32:
                clip = 3 * self.asked.height * self.asked.width * self.asked.num_frames * torch.float32.itemsize
                found = Need(found.device + clip, found.host)
            self.encoding[plan] = found
        return found

    def encode_seconds(self, plan: DecodePlan) -> float:
        return self.encode_flops / self.rates.conv * STRIPS_SLOWER.get(plan.rows_per_step, 1.7)

    def writing(self) -> int:
        """Host bytes: a chunk's frames in uint8, and those that the encoder of the video looks ahead."""
        height, width, num_frames = self._video
        chunk = min(num_frames, self.networks.autoencoder.config.chunk_frames)
        return height * width * round(3 * chunk + 1.5 * min(num_frames, LOOK_AHEAD))
