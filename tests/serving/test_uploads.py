"""Uploads: what is a picture or a clip is written anew, all else is refused, by a process that may do little."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import zipfile
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image
from tiny_server import LIMITS, request

from dcvideogen.serving.database import LOCAL_KEY
from dcvideogen.serving.jobs import new_id
from dcvideogen.serving.keys import Keys
from dcvideogen.serving.limits import Limits
from dcvideogen.serving.request_error import RequestError
from dcvideogen.serving.store import JobStore
from dcvideogen.serving.uploads import Uploads
from dcvideogen.video import iterate_frames


def gradient(height: int, width: int) -> np.ndarray:
    """Dark at the top left, red to the right, green to the bottom."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns * 255 / (width - 1), rows * 255 / (height - 1), 0 * rows], axis=-1).astype(np.uint8)


def picture_bytes(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def clip_bytes(num_frames: int = 6, height: int = 48, width: int = 64, form: str = "mp4", codec: str = "libx264",
               rotation: int = 0, pixel_format: str = "yuv420p") -> bytes:  # fmt: skip
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as container:
        stream = container.add_stream(codec, rate=Fraction(12))
        stream.height, stream.width, stream.pix_fmt = height, width, pixel_format
        if rotation:
            stream.set_display_rotation(rotation)
        picture = av.VideoFrame.from_ndarray(gradient(height, width)).reformat(format=pixel_format)
        for index in range(num_frames):
            picture.pts = index
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def send(uploads: Uploads, data: bytes, kind: str = "image", key_id: str = LOCAL_KEY):
    with uploads.receive(key_id) as incoming:
        for start in range(0, len(data), 10_000):
            incoming.write(data[start : start + 10_000])
        return uploads.add(key_id, kind, incoming)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_that_claims(height: int, width: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def mp4_that_claims(height: int, width: int) -> bytes:
    """An mp4 whose sample entry and H.264 headers are of a small video, made to say another size everywhere."""
    data = bytearray(clip_bytes(form="mp4", codec="mpeg4"))
    entry = data.index(b"mp4v")
    data[entry + 28 : entry + 32] = struct.pack(">HH", width, height)
    # MPEG-4 part 2, video object layer (ISO 14496-2): the 13 bits each of width and height behind their markers.
    bits = "".join(f"{byte:08b}" for byte in data)
    old = f"1{64:013b}1{48:013b}1"
    assert old in bits
    bits = bits.replace(old, f"1{min(width, 8191):013b}1{min(height, 8191):013b}1")
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


@pytest.fixture
def uploads(tmp_path):
    yield (uploads := Uploads(tmp_path, Limits()))
    assert list((tmp_path / "incoming").iterdir()) == []
    uploads.close()


def test_a_picture_is_turned_and_kept_without_its_place_and_camera(uploads):
    picture = Image.fromarray(gradient(20, 30))
    exif = picture.getexif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to show
    exif[0x010F] = "secret camera"
    upload = send(uploads, picture_bytes(picture, "PNG", exif=exif, icc_profile=b"secret profile"))
    assert (upload.facts.height, upload.facts.width) == (30, 20)
    path = uploads.files.upload(upload.id)
    with Image.open(path) as kept:
        assert np.array_equal(np.asarray(kept), np.rot90(gradient(20, 30), -1))
    assert b"secret" not in path.read_bytes()
    assert uploads.get(LOCAL_KEY, upload.id) == upload
    assert path.stat().st_mode & 0o077 == 0


def test_every_kind_of_pixel_becomes_eight_bits_of_colour(tmp_path):
    uploads = Uploads(tmp_path, Limits(picture_side=32))
    grey = np.full((16, 16), 40_000, dtype=np.uint16)
    transparent = Image.new("RGBA", (16, 16), (10, 20, 30, 0))
    for image, mode, pixel in (
        (Image.fromarray(grey), "RGB", (156,) * 3),
        (transparent, "RGBA", (10, 20, 30, 0)),
        (Image.new("CMYK", (16, 16)), "RGB", (255,) * 3),
        (Image.new("1", (16, 16)), "RGB", (0,) * 3),
    ):
        form = "JPEG" if image.mode == "CMYK" else "PNG"
        with Image.open(uploads.files.upload(send(uploads, picture_bytes(image, form)).id)) as kept:
            assert (kept.format, kept.mode, kept.getpixel((3, 3))) == ("PNG", mode, pixel)
    wide = send(uploads, picture_bytes(Image.fromarray(gradient(50, 100)), "WEBP"))
    assert (wide.facts.height, wide.facts.width) == (16, 32)


def test_a_clip_is_cut_to_its_first_frames_made_smaller_and_upright(tmp_path):
    uploads = Uploads(tmp_path, Limits(clip_frames=4, clip_side=32))
    upload = send(uploads, clip_bytes(6, 48, 64), "clip")
    facts = upload.facts
    assert (facts.height, facts.width, facts.num_frames, facts.fps, facts.shortened) == (24, 32, 4, "12", True)
    with av.open(str(uploads.files.upload(upload.id))) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 12)
    assert len(frames) == 4
    assert np.abs(frames[3].astype(int) - gradient(24, 32)).mean() < 4


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2), (270, 3)])
def test_a_clip_of_a_phone_is_turned_as_the_library_turns_it(tmp_path, degrees, turns):
    uploads = Uploads(tmp_path, Limits())
    data = clip_bytes(2, rotation=degrees)
    (tmp_path / "original.mp4").write_bytes(data)
    original = next(iterate_frames(tmp_path / "original.mp4"))
    kept = next(iterate_frames(uploads.files.upload(send(uploads, data, "clip").id)))
    expected = np.rot90(gradient(48, 64), turns)
    for frame in (original, kept):
        assert frame.shape == expected.shape
        assert np.abs(frame.astype(int) - expected).mean() < 4
    assert np.abs(frame.astype(int) - original).mean() < 3


@pytest.mark.parametrize(("form", "codec"), [("webm", "libvpx-vp9"), ("matroska", "libx264"), ("mov", "mpeg4")])
def test_clips_of_browsers_and_phones_are_read(uploads, form, codec):
    facts = send(uploads, clip_bytes(3, form=form, codec=codec), "clip").facts
    assert (facts.height, facts.width, facts.num_frames, facts.shortened) == (48, 64, 3, False)


def test_texts_in_a_clip_may_be_in_any_encoding(uploads):
    data = clip_bytes(2)
    assert data.count(b"VideoHandler") == 1
    assert send(uploads, data.replace(b"VideoHandler", b"V\xeddeoHandler"), "clip").facts.num_frames == 2


def test_frames_beyond_the_limit_are_refused_and_those_at_it_are_not(tmp_path):
    assert send(Uploads(tmp_path, Limits(upload_pixels=48 * 64)), clip_bytes(2), "clip").facts.num_frames == 2
    with pytest.raises(RequestError, match="frames of 64x48 came, up to 3,071 pixels are allowed; make it smaller"):
        send(Uploads(tmp_path, Limits(upload_pixels=48 * 64 - 1)), clip_bytes(2), "clip")


def zip_bytes() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.txt", "text")
    return buffer.getvalue()


NOISE = picture_bytes(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)))
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
MJPEG = clip_bytes(2, form="matroska", codec="mjpeg", pixel_format="yuvj420p")
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n"
HOSTILE = {
    "empty picture": ("image", b"", "upload_damaged"),
    "empty clip": ("clip", b"", "upload_damaged"),
    "half a picture": ("image", NOISE[: len(NOISE) // 2], "upload_damaged"),
    "a picture's header": ("image", NOISE[:33], "upload_unsupported"),
    "half a clip": ("clip", clip_bytes()[: len(clip_bytes()) // 2], "upload_damaged"),
    "a clip's header": ("clip", b"\0\0\0\x20ftypisom" + bytes(20), "upload_damaged"),
    "a bomb": ("image", png_that_claims(60_000, 60_000), "upload_too_large"),
    "the largest size": ("image", png_that_claims(2**31 - 1, 2**31 - 1), "upload_too_large"),
    "size none": ("image", png_that_claims(0, 0), "upload_unsupported"),
    "an absurd clip": ("clip", mp4_that_claims(60_000, 60_000), "upload_damaged"),
    "another codec": (
        "clip",
        clip_bytes(2, form="matroska", codec="mjpeg", pixel_format="yuvj420p"),
        "upload_unsupported",
    ),
    "unknown codec": ("clip", clip_bytes(2).replace(b"avc1", b"zzzz"), "upload_unsupported"),
    "zip": ("image", zip_bytes(), "upload_unsupported"),
    "svg": ("image", SVG, "upload_unsupported"),
    "playlist": ("clip", PLAYLIST, "upload_unsupported"),
    "list of files": ("clip", b"ffconcat version 1.0\nfile /etc/passwd\n", "upload_unsupported"),
    "clip as picture": ("image", clip_bytes(2), "upload_unsupported"),
    "picture as clip": ("clip", NOISE, "upload_unsupported"),
    "program": ("image", b"\x7fELF" + bytes(100), "upload_unsupported"),
    "postscript": ("image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "upload_unsupported"),
    "tiny clip": ("clip", clip_bytes(2, 8, 8, codec="mpeg4"), "upload_unsupported"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_picture_or_clip_is_refused_and_leaves_nothing(uploads, tmp_path, name):
    kind, data, code = HOSTILE[name]
    with pytest.raises(RequestError) as refused:
        send(uploads, data, kind)
    assert refused.value.code == code
    assert refused.value.http_status in (413, 415, 422)
    assert str(tmp_path) not in str(refused.value)
    assert not (tmp_path / "uploads").exists()


@pytest.mark.parametrize(
    "tight",
    [{"reading_memory_bytes": 60 * 2**20}, {"reading_wall_s": 0.01}, {"reading_output_bytes": 1000}],
    ids=lambda tight: next(iter(tight)),
)
def test_a_picture_that_takes_too_much_is_refused(tmp_path, tight):
    uploads = Uploads(tmp_path, Limits(**tight))
    picture = Image.new("RGB", (4000, 4000)) if "reading_memory_bytes" in tight else Image.effect_noise((90, 90), 100)
    with pytest.raises(RequestError, match=r"memory|too long to be read|too large when it is written") as refused:
        send(uploads, picture_bytes(picture))
    assert (refused.value.code, refused.value.http_status) == ("upload_too_expensive", 422)
    assert not list((tmp_path / "incoming").iterdir())


def test_a_clip_that_grows_too_much_is_refused(tmp_path):
    uploads = Uploads(tmp_path, Limits(reading_output_bytes=1000))
    with pytest.raises(RequestError, match="it becomes too large when it is written anew"):
        send(uploads, clip_bytes(6), "clip")


def test_a_clip_that_takes_too_much_computing_is_refused(tmp_path):
    uploads = Uploads(tmp_path, Limits(reading_cpu_s=1, clip_frames=5000))
    with pytest.raises(RequestError, match="within the limits of memory, time and size") as refused:
        send(uploads, clip_bytes(1000, 480, 640, codec="mpeg4"), "clip")
    assert refused.value.code == "upload_too_expensive"


def test_more_bytes_than_allowed_are_refused_while_they_come(tmp_path):
    uploads = Uploads(tmp_path, Limits(upload_bytes=25_000))
    with uploads.receive(LOCAL_KEY) as incoming:
        incoming.write(bytes(25_000))
        with pytest.raises(RequestError, match=r"more than 24.41 KiB came") as refused:
            incoming.write(b"x")
    assert (refused.value.code, refused.value.http_status) == ("upload_too_large", 413)


def test_uploads_are_counted_and_each_keys_own(tmp_path):
    uploads, store = Uploads(tmp_path, Limits(uploads_per_key=1)), JobStore(tmp_path)
    other = Keys(tmp_path).add("other")[0].id
    upload = send(uploads, NOISE)
    with pytest.raises(RequestError, match=r"1 uploads of this key are kept.*try again in 6 h") as refused:
        send(uploads, NOISE)
    assert refused.value.code == "too_many_uploads"
    for call in (uploads.get, uploads.delete):
        with pytest.raises(RequestError, match="there is no upload"):
            call(other, upload.id)
    job = store.add(LOCAL_KEY, request(image=upload.id), LIMITS)
    uploads.delete(LOCAL_KEY, upload.id)
    with pytest.raises(RequestError, match="there is no upload"):
        uploads.get(LOCAL_KEY, upload.id)
    with Image.open(store.files.copy(job.id, "image")) as kept:
        assert kept.size == (64, 64)
    with pytest.raises(RequestError, match="upload the file again"):
        store.add(LOCAL_KEY, request(image=upload.id), LIMITS)
    assert send(uploads, NOISE).id != upload.id


def test_only_so_many_are_read_at_once(tmp_path):
    uploads = Uploads(tmp_path, Limits(readings_at_once=1))
    ready, data = threading.Barrier(3), clip_bytes(150, 240, 320)
    read, refused = [], []

    def send_one() -> None:
        ready.wait()
        try:
            read.append(send(uploads, data, "clip"))
        except RequestError as error:
            refused.append((error.code, error.http_status, error.retry_after))

    threads = [threading.Thread(target=send_one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read) == 1
    assert refused == [("uploads_busy", 503, 5)] * 2


def test_the_reading_process_and_the_modules_of_this_floor_load_nothing_heavy():
    names = "database files heart job_rows jobs keys limits owners queue_figures request_error store upkeep uploads"
    for modules, unwanted in (
        (f"{names} work_queue".split(), "torch numpy av diffusers fastapi"),
        (["upload_child", "upload_picture"], "torch numpy av pydantic sqlite3"),
        (["upload_clip"], "torch pydantic sqlite3"),
    ):
        imported = "; ".join(f"import dcvideogen.serving.{name}" for name in modules)
        code = f"{imported}; import sys; print(sorted(set({unwanted.split()}) & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


def test_ids_that_are_none_are_not_found(uploads, tmp_path):
    (tmp_path / "incoming").mkdir()
    for upload_id in ("", "../x", new_id("image"), new_id("clip") + "\n"):
        with pytest.raises(RequestError, match="there is no upload of this id"):
            uploads.get(LOCAL_KEY, upload_id)
