"""The texts that a video file, an image or a folder of images carries."""

from pathlib import Path

from dcvideogen.video.images import image_texts, is_image, list_images
from dcvideogen.video.source import open_source

# Where a generated video keeps what it was made with, as JSON: `generate` knows it again by that.
SETTINGS_KEY = "comment"


def read_metadata(path: str | Path) -> dict[str, str]:
    """Key -> text, keys in lower case: Matroska writes them in capitals.

    Of a video file what its container says of the whole; of an image its text chunks; of a folder those of its first
    image, as VideoWriter writes them into every one. Besides what was asked for, writers store things of their own,
    such as `encoder`. UserError as in `probe`.
    """
    path = Path(path)
    if path.is_dir() or is_image(path):
        texts = image_texts(list_images(path)[0] if path.is_dir() else path)
    else:
        with open_source(path) as source:
            texts = dict(source.container.metadata)
    return {key.lower(): text for key, text in texts.items()}
