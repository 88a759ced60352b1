"""`dcvideogen keys`: who may use a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dcvideogen.cli.console import out

keys = typer.Typer(help="API keys of `dcvideogen serve`: add, list, revoke.", no_args_is_help=True)

DEFAULT_DATA = Path("dcvideogen-data")
Data = Annotated[Path, typer.Option(help="The server's data folder.")]


@keys.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Whose it is, for `keys list`.")],
    data: Data = DEFAULT_DATA,
    queued_at_once: Annotated[int | None, typer.Option(help="At most so many queued jobs of it.")] = None,
    videos_per_day: Annotated[int | None, typer.Option(help="At most so many videos of it in a day (UTC).")] = None,
) -> None:
    """Make a key and print it, once: only its hash is kept."""
    from dcvideogen.serving.keys import Keys

    store = Keys(data)
    key, text = store.add(name, queued_at_once=queued_at_once, videos_per_day=videos_per_day)
    store.close()
    out.print(text, markup=False, soft_wrap=True)
    out.print(f"the key {key.id} for {name}; it is not shown again", markup=False, soft_wrap=True)


@keys.command("list")
def list_keys(data: Data = DEFAULT_DATA) -> None:
    """List all keys, revoked ones too; not their texts, which nobody has."""
    from dcvideogen.serving.keys import Keys

    store = Keys(data)
    found = store.list_keys()
    store.close()
    if not found:
        out.print("no keys; `dcvideogen keys add NAME` makes one")
    for key in found:
        state = f"revoked {_day(key.revoked)}" if key.revoked else f"last used {_day(key.last_used)}"
        quotas = {"queued at once": key.queued_at_once, "videos a day": key.videos_per_day}
        limits = "".join(f", {value} {what}" for what, value in quotas.items() if value is not None)
        out.print(f"{key.id}  {key.name}  made {_day(key.created)}, {state}{limits}", markup=False, soft_wrap=True)


@keys.command("revoke")
def revoke(
    key: Annotated[str, typer.Argument(help="Its name or its id.")],
    data: Data = DEFAULT_DATA,
) -> None:
    """Refuse a key from now on, also while the server runs; its jobs are cancelled."""
    from dcvideogen.serving.keys import Keys

    store = Keys(data)
    revoked = store.revoke(key)
    store.close()
    out.print(f"revoked {revoked.id} ({revoked.name})", markup=False, soft_wrap=True)


def _day(seconds: float | None) -> str:
    from datetime import UTC, datetime

    return "never" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
