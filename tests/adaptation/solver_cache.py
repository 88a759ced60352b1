"""A cache in memory, of random latents, for the solvers."""

import torch

from dcvideogen.adaptation.cache import CacheInfo, Clip, LatentCache

TEXT_TOKENS = 6


class MemoryStore:
    """tensors: name -> (clips, ...)."""

    def __init__(self, tensors, texts):
        self.tensors, self.texts = tensors, texts

    def clip(self, index, name):
        return self.tensors[name][index] if name in self.tensors else None

    def text(self, index):
        return self.texts[index]


class SolverCache(LatentCache):
    """Clips of `grid` (frames, height, width) in new latents; base latents are `pool` times finer.

    New latents are a linear map of blocks of base latents, and noise. channels: (new, base). Tensors may be changed
    in place.
    """

    def __init__(
        self, count=12, held_out=3, channels=(8, 4), grid=(3, 2, 2), pool=(1, 4, 4), i2v=False, noise=0.1, seed=0
    ):
        generator = torch.Generator().manual_seed(seed)
        new, base = channels
        mix = torch.randn(new, base * pool[0] * pool[1] * pool[2], generator=generator) / 8

        def pairs():
            fine = torch.randn(count, base, *grid, generator=generator)
            for dim, size in zip((2, 3, 4), pool, strict=True):
                fine = fine.repeat_interleave(size, dim)
            fine = fine + 0.5 * torch.randn(fine.shape, generator=generator)
            blocks = fine.unflatten(4, (-1, pool[2])).unflatten(3, (-1, pool[1])).unflatten(2, (-1, pool[0]))
            blocks = blocks.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
            coarse = (blocks @ mix.mT).movedim(-1, 1)
            return coarse + noise * torch.randn(coarse.shape, generator=generator), fine

        self.latents, self.base_latents = pairs()
        tensors = {"latents": self.latents, "base_latents": self.base_latents}
        if i2v:
            image, base_image = pairs()
            tensors |= {"condition": zeros_behind(image), "base_condition": zeros_behind(base_image)}
        captions = [f"caption {index}" for index in range(count)]
        super().__init__(
            "key",
            CacheInfo(
                latent_space_id="new", latent_channels=new, spatial_ratio=32, temporal_ratio=4, base_space_id="base",
                base_latent_channels=base, base_spatial_ratio=8, base_temporal_ratio=4, time_offset=3,
                image_to_video=i2v, max_sequence_length=TEXT_TOKENS, text_encoder="text",
            ),
            [
                Clip(f"key {i}", f"clip-{i}.mp4", captions[i], (4 * grid[0], 32, 32), i < held_out, True)
                for i in range(count)
            ],
            ["", *captions],
            MemoryStore(tensors, [torch.randn(2 + i % 5, 16, generator=generator) for i in range(count + 1)]),
        )  # fmt: skip


def zeros_behind(latents):
    """An image in frame 0 and what an autoencoder makes of the zeros behind it: nearly constant."""
    image = 0.01 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(latents.shape[1]))
    image[:, :, 0] = latents[:, :, 0]
    return image
