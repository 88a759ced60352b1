"""Which FFmpeg libraries PyAV brings."""

import av


def library_versions() -> dict[str, str]:
    """Name -> version: PyAV and the FFmpeg libraries inside it, for example libavcodec 62.11.100."""
    ffmpeg = {name: ".".join(map(str, version)) for name, version in sorted(av.library_versions.items())}
    return {"PyAV": av.__version__, **ffmpeg}
