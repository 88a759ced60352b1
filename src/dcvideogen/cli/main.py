"""Entry point of `dcvideogen`: the commands, and what happens to an error.

An error that a user can mend is one line on stderr and exit code 2; any other one line and exit code 1; `--debug`
shows the traceback. Ctrl-C is exit code 130. The modules of the commands import nothing heavy before they run.
"""

import sys
import traceback
from typing import Annotated

import typer
from typer.main import get_command

from dcvideogen.cli.adapt import adapt
from dcvideogen.cli.cache import cache
from dcvideogen.cli.console import err, show_notes
from dcvideogen.cli.convert import convert
from dcvideogen.cli.data import data
from dcvideogen.cli.decode import decode
from dcvideogen.cli.demo import demo
from dcvideogen.cli.doctor import doctor
from dcvideogen.cli.encode import encode
from dcvideogen.cli.evaluate import evaluate
from dcvideogen.cli.extract_lora import extract_lora
from dcvideogen.cli.generate import generate
from dcvideogen.cli.info import info
from dcvideogen.cli.keys import keys
from dcvideogen.cli.merge import merge
from dcvideogen.cli.models import models
from dcvideogen.cli.reconstruct import reconstruct
from dcvideogen.cli.report import report
from dcvideogen.cli.serve import serve
from dcvideogen.cli.shapes import shapes
from dcvideogen.cli.train_autoencoder import train_autoencoder
from dcvideogen.cli.vbench import vbench
from dcvideogen.version import __version__

USER_ERROR, FAILURE, INTERRUPTED = 2, 1, 130

app = typer.Typer(
    help="Video diffusion in deep compression latents: train an autoencoder, adapt a model, generate, measure, serve.",
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode=None,
)
for command in (
    demo,
    generate,
    reconstruct,
    encode,
    decode,
    info,
    models,
    doctor,
    convert,
    train_autoencoder,
    adapt,
    cache,
    merge,
    extract_lora,
    report,
    serve,
):
    app.command()(command)
app.add_typer(data, name="data")
app.add_typer(evaluate, name="evaluate")
app.add_typer(shapes, name="shapes")
app.add_typer(vbench, name="vbench")
app.add_typer(keys, name="keys")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"dcvideogen {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    _debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


def run(arguments: list[str]) -> int:
    """Runs one command line (without the program's name) and returns its exit code; errors go to stderr."""
    # Taken out here, so that it may also follow the command.
    end = arguments.index("--") if "--" in arguments else len(arguments)
    debug = "--debug" in arguments[:end]
    arguments = [a for a in arguments[:end] if a != "--debug"] + arguments[end:]
    show_notes()
    try:
        code = get_command(app).main(arguments or ["--help"], prog_name="dcvideogen", standalone_mode=False)
        if code == INTERRUPTED:  # how typer hands on Ctrl-C
            return _fail("interrupted; nothing half-written was left", INTERRUPTED)
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        return _fail("interrupted; nothing half-written was left", INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone: nobody to tell
        return FAILURE
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _explain(error, debug)


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def _explain(error: Exception, debug: bool) -> int:
    from dcvideogen.errors import UserError

    if isinstance(error, UserError):
        return _fail(one_line(error), USER_ERROR)
    if hasattr(error, "format_message"):  # typer's usage errors: unknown command or option, missing argument
        return _fail(f"{one_line(error.format_message())} (`dcvideogen --help` lists what there is)", USER_ERROR)
    if isinstance(error, OSError) and error.errno is not None:  # no permission, disk full, ...
        where = "" if error.filename is None else f"{error.filename}: "
        return _fail(f"{where}{error.strerror}", USER_ERROR)
    out_of_memory = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)  # GPU, CPU
    if out_of_memory or isinstance(error, MemoryError):
        return _fail("out of memory; --rows-per-step 16 --offload-state need the least", USER_ERROR)
    hint = "" if debug else "; --debug shows where"
    return _fail(f"unexpected {type(error).__name__}: {one_line(error)}{hint}", FAILURE)


def one_line(error: object) -> str:
    return " ".join(str(error).split())


def _fail(message: str, code: int) -> int:
    err.print(f"error: {message}", markup=False, highlight=False, soft_wrap=True)
    return code
