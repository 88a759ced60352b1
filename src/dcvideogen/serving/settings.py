"""What a server is told when it starts: the models that it serves, where it listens, and its limits."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field

from dcvideogen.serving.jobs import Frozen, VideoDefaults
from dcvideogen.serving.limits import Limits

Task = Literal["t2v", "i2v", "autoencoder"]
MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"  # as in `JobRequest.model`


class ServedModel(Frozen):
    """A model as clients see it, except for `source`, which is the operator's: a bundled name or a folder.

    is_base: a plain diffusers pipeline in its own latents. defaults: of a request that leaves things out; None: of an
    autoencoder, whose clips decide. sizes: (width, height, frames) that it was trained for. base: the served model that
    it was made of. text_tokens: the length that a base pads its prompts to; None: the usual.
    """

    name: str = Field(pattern=MODEL_NAME)
    source: str
    task: Task
    is_base: bool = False
    defaults: VideoDefaults | None = None
    sizes: tuple[tuple[int, int, int], ...] = ()
    base: str | None = None
    text_tokens: int | None = None


@dataclass(frozen=True)
class ServeSettings:
    """data: the data folder. devices: one worker process for each, such as "cpu" or "cuda:1"; none: jobs only queue up.

    require_keys: also on loopback, for a server behind a reverse proxy, through which everyone comes from there.
    dtype: "auto", "fp32" or "bf16".
    """

    data: Path
    models: tuple[ServedModel, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    require_keys: bool = False
    devices: tuple[str, ...] = ()
    dtype: str = "auto"
    limits: Limits = field(default_factory=Limits)

    @property
    def keys_required(self) -> bool:
        return self.require_keys or not is_loopback(self.host)

    @property
    def own_hosts(self) -> frozenset[str]:
        """What a browser on this machine writes into `Host` for this server."""
        names = {"localhost", "127.0.0.1", "[::1]", f"[{self.host}]" if ":" in self.host else self.host}
        ports = [f":{self.port}", *([""] if self.port == 80 else [])]
        return frozenset(f"{name}{port}" for name in names for port in ports)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; names other than localhost count as the whole world."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
