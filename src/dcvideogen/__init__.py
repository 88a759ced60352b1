"""dcvideogen: deep compression video generation (DC-VideoGen, arXiv 2509.25182).

Importing the package imports nothing heavy: the public classes are loaded when they are first used.
"""

from typing import TYPE_CHECKING, Any

from dcvideogen.version import __version__

if TYPE_CHECKING:
    from dcvideogen.autoencoder.model import AutoencoderDCV

__all__ = ["AutoencoderDCV", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "AutoencoderDCV":
        from dcvideogen.autoencoder.model import AutoencoderDCV

        return AutoencoderDCV
    raise AttributeError(f"module 'dcvideogen' has no attribute '{name}'")
