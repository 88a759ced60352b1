"""The process in which an uploaded file is decoded and written anew: little memory, little time, no way out.

    python -I -m dcvideogen.serving.upload_child KIND FOLDER LIMITS

reads FOLDER/upload and writes FOLDER/picture.png or FOLDER/clip.mp4, and FOLDER/result.json: {"facts": {...}} or
{"refused": CODE, "message": TEXT}. No decoder is imported before the limits hold.
"""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from dcvideogen.serving.upload_terms import DAMAGED, RESULT, TOO_EXPENSIVE, UPLOAD, Refused

# Opened by the decoders' libraries at once, with room.
_OPEN_FILES = 64


def main(kind: str, folder: Path, limits: dict[str, Any]) -> None:
    """kind: "image" or "clip". limits: the fields of `Limits`."""
    _confine(limits)
    try:
        facts = _read(kind, folder, limits)
        result = {"facts": facts}
    except Refused as refusal:
        result = {"refused": refusal.code, "message": str(refusal)}
    except MemoryError:
        result = {"refused": TOO_EXPENSIVE, "message": "it needs too much memory to be read"}
    except ImportError:
        raise  # ours: the server logs that this process failed
    except Exception as error:  # decoders fail in many ways at what nobody foresaw
        if getattr(error, "errno", None) == errno.EFBIG:
            result = {"refused": TOO_EXPENSIVE, "message": "it becomes too large when it is written anew"}
        else:
            result = {"refused": DAMAGED, "message": "the file cannot be read"}
    # A memory error leaves room again: what was being decoded is gone.
    (folder / RESULT).write_text(json.dumps(result), encoding="utf-8")


def _read(kind: str, folder: Path, limits: dict[str, Any]) -> dict[str, Any]:
    if (folder / UPLOAD).stat().st_size == 0:
        raise Refused(DAMAGED, "the file is empty")
    if kind == "image":
        from dcvideogen.serving.upload_picture import rewrite_picture

        return rewrite_picture(folder / UPLOAD, folder, limits)
    from dcvideogen.serving.upload_clip import rewrite_clip

    return rewrite_clip(folder / UPLOAD, folder, limits)


def _confine(limits: dict[str, Any]) -> None:
    cpu_s = limits["reading_cpu_s"]
    for which, soft, hard in (
        (resource.RLIMIT_AS, limits["reading_memory_bytes"], limits["reading_memory_bytes"]),
        (resource.RLIMIT_CPU, cpu_s, cpu_s + 1),
        (resource.RLIMIT_FSIZE, limits["reading_output_bytes"], limits["reading_output_bytes"]),
        (resource.RLIMIT_NOFILE, _OPEN_FILES, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        highest = resource.getrlimit(which)[1]
        ceiling = hard if highest == resource.RLIM_INFINITY else min(hard, highest)
        resource.setrlimit(which, (min(soft, ceiling), ceiling))
    # The server waits and kills; this is for the case that the server itself is killed.
    signal.alarm(math.ceil(limits["reading_wall_s"]) + 1)
    os.umask(0o077)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))
