"""The command `fc7`: verbs gathered, errors turned into one line and an exit code.

Exit codes: 0 done; 1 a named error; 2 wrong usage, or a question that this network cannot answer;
3 bad rows under --strict; 130 interrupted.
What the machine refuses (a full disk, a folder that may not be written) is a named error too.
Nothing heavy is imported before a verb runs, so that `fc7 --help` answers at once.
"""

import errno
import sys

import typer

from fc7.engine.cli import (
    attribution,
    classes,
    dream,
    facets,
    fool,
    gradients,
    inspect,
    invert,
    main_job,
    pruning,
    segmentation,
    stylize,
    techniques,
)
from fc7.engine.cli.console import FAILED, INTERRUPTED, USAGE, say
from fc7.engine.errors import ASKED_WRONG, Fc7Error

_CURES = {
    errno.ENOSPC: "make room; what was committed is kept, and the same command continues",
    errno.EDQUOT: "make room; what was committed is kept, and the same command continues",
    errno.EFBIG: "raise the limit; what was committed is kept, and the same command continues",
    errno.EMFILE: "raise the limit, ulimit -n",
    errno.EIO: "look at the disk; what was committed is kept, and the same command continues",
    errno.EACCES: "ask for the right to it, or choose another place",
    errno.EPERM: "ask for the right to it, or choose another place",
    errno.EROFS: "choose another place",
    errno.ENOENT: "make its folder first, or choose another place",
    errno.ENOTDIR: "choose another place",
    errno.EISDIR: "name a file",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOLCK: "choose a file system with locks",
}
"""What a person can do about an error of the operating system; any other is a defect."""

app = typer.Typer(
    name="fc7",
    help="What has a convolutional network learnt? Ask a whole data set.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
main_job.register(app)
techniques.register(app)
attribution.register(app)
gradients.register(app)
segmentation.register(app)
pruning.register(app)
classes.register(app)
fool.register(app)
dream.register(app)
invert.register(app)
facets.register(app)
stylize.register(app)
inspect.register(app)


def main() -> None:
    """Run the command line; the entry point of the installed script."""
    try:
        app()
    except Fc7Error as error:
        say(f"fc7: {error}")
        sys.exit(USAGE if isinstance(error, ASKED_WRONG) else FAILED)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:  # typer has taken the KeyboardInterrupt and says nothing
            say("fc7: interrupted; what was committed is kept, and the same command continues")
        raise
    except OSError as error:
        cure = _CURES.get(error.errno or 0)
        if cure is None:
            raise
        place = f"{error.filename}: " if error.filename else ""
        say(f"fc7: {place}{error.strerror}; {cure}")
        sys.exit(FAILED)
    except Exception as error:
        # fc7.indexing stands below the engine and has an error of its own.
        if type(error).__name__ == "IndexingError":
            say(f"fc7: {error}")
            sys.exit(FAILED)
        raise


if __name__ == "__main__":
    main()
