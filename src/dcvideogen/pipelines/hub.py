"""Models of the Hugging Face hub by their id: from its cache, and over the network only when that was asked for."""

from __future__ import annotations

import re
from pathlib import Path

from dcvideogen.errors import UserError

ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# What pipelines are made of; the authors' autoencoder is a .pt. Pickled weights beside them stay where they are.
FILES = ("*.json", "*.safetensors", "*.pt", "*.model", "*.txt")


def is_hub_id(model: str) -> bool:
    """Whether a name looks like ORGANISATION/MODEL and is no path that is there."""
    return ID.fullmatch(model) is not None and not Path(model).exists()


def hub_folder(model: str, *, download: bool) -> Path:
    """The folder of the model's files, which hub libraries share.

    download: whether files that are missing may be fetched. UserError: they may not, or could not.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(model, allow_patterns=list(FILES), local_files_only=not download))
    except LocalEntryNotFoundError as error:
        if download:
            raise UserError(f"{model} could not be fetched from the hub; is the network there?") from error
        raise UserError(
            f"{model} is no folder here and not in the hub's cache; --download fetches it, if it is a model on the hub"
        ) from error
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        raise UserError(f"{model} could not be fetched from the hub: {' '.join(str(error).split())[:300]}") from error
