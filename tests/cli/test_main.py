import os
import signal
import subprocess
import sys
import time

import pytest

from dcvideogen.cli import main
from dcvideogen.errors import UserError
from dcvideogen.version import __version__

COMMANDS = (
    "demo",
    "reconstruct",
    "encode",
    "decode",
    "info",
    "models",
    "doctor",
    "convert",
    "data",
    "train-autoencoder",
    "cache",
    "evaluate",
    "merge",
    "extract-lora",
)


@pytest.mark.parametrize("arguments", [["--help"], *([command, "--help"] for command in COMMANDS)], ids=" ".join)
def test_help_comes_in_under_a_second_and_imports_nothing_heavy(arguments):
    heavy = {"torch", "diffusers", "av", "numpy", "transformers", "safetensors"}
    code = (
        "import sys, time; from dcvideogen.cli.main import run; code = run(sys.argv[1:]);"
        f"print(sorted({heavy!r} & set(sys.modules)), time.process_time(), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    modules, seconds = done.stderr.rsplit(maxsplit=1)
    assert modules == "[]"
    assert float(seconds) < 1  # of processor time, so that a busy machine does not fail it
    assert "--help" in done.stdout


def test_every_command_is_listed_and_no_arguments_show_the_help(dcvideogen):
    result = dcvideogen()
    assert result.code == 0
    assert all(command in result.out for command in COMMANDS)
    assert result == dcvideogen("--help")


def test_version(dcvideogen):
    result = dcvideogen("--version")
    assert (result.code, result.out.strip()) == (0, f"dcvideogen {__version__}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["reconstructt"], "Did you mean 'reconstruct'"),
        (["models", "--nonsense"], "No such option: --nonsense"),
        (["encode", "a.mp4"], "Missing option '-o'"),
        (["encode", "-o", "a.safetensors"], "Missing argument 'INPUT'"),
        (["encode", "a.mp4", "-o", "a.safetensors", "--num-frames", "many"], "'--num-frames'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(refused, arguments, message):
    refused(message, *arguments)


@pytest.fixture
def failing(monkeypatch):
    """Makes `dcvideogen models` raise an error."""

    def fail(error: BaseException) -> None:
        def print_nothing(*_, **__):
            raise error

        monkeypatch.setattr("dcvideogen.cli.models.out.print", print_nothing)

    return fail


def test_a_user_error_is_one_line_and_debug_shows_the_traceback(failing, refused, dcvideogen):
    failing(UserError("two\nlines came"))
    refused("two lines came", "models")
    result = dcvideogen("models", "--debug")
    assert result.code == 2
    assert "Traceback" in result.err
    assert "Traceback" in dcvideogen("--debug", "models").err


def test_a_file_error_names_the_file(failing, refused):
    failing(PermissionError(13, "Permission denied", "clip.mp4"))
    refused("clip.mp4: Permission denied", "models")
    failing(OSError(28, "No space left on device"))
    refused("error: No space left on device", "models")


def test_an_unexpected_error_is_one_line_with_a_hint_and_exit_code_1(failing, dcvideogen):
    failing(RuntimeError("boom"))
    result = dcvideogen("models")
    assert (result.code, result.err) == (1, "error: unexpected RuntimeError: boom; --debug shows where\n")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")]
)
def test_running_out_of_memory_names_the_options_that_help(failing, refused, error):
    failing(error)
    refused("--rows-per-step", "models")


def test_ctrl_c_ends_with_130_and_a_line(failing, dcvideogen):
    failing(KeyboardInterrupt())
    result = dcvideogen("models")
    assert (result.code, result.err) == (130, "error: interrupted; nothing half-written was left\n")


def test_ctrl_c_in_the_middle_of_a_clip_leaves_nothing_half_written(make_clip, model_folder, tmp_path):
    clip = make_clip("long.mp4", num_frames=300, height=96, width=96)
    arguments = ["reconstruct", str(clip), "-o", str(tmp_path / "out"), "--model", str(model_folder)]
    code = "import sys; from dcvideogen.cli.main import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/.*partial*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "error: interrupted; nothing half-written was left"
    assert not (tmp_path / "out").exists()


def test_log_messages_are_plain_notes(dcvideogen, make_clip, tmp_path, model_folder):
    clip = make_clip("odd.mkv", num_frames=3, height=15, width=17)
    result = dcvideogen("reconstruct", clip, "-o", tmp_path / "out", "--model", model_folder)
    assert result.code == 0
    notes = result.err.splitlines()
    assert notes
    assert all(line.startswith("note: ") for line in notes)


def test_one_line_joins_what_spans_several():
    assert main.one_line("a\n  b") == "a b"
