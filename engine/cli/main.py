"""The command `fc7`: verbs gathered, errors turned into one line and an exit code.

Exit codes: 0 done; 1 a named error; 2 wrong usage; 3 bad rows under --strict; 130 interrupted.
Nothing heavy is imported before a verb runs, so that `fc7 --help` answers at once.
"""

import sys

import typer

from fc7.engine.cli import inspect, main_job, techniques
from fc7.engine.cli.console import FAILED, INTERRUPTED, say
from fc7.engine.errors import Fc7Error

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
inspect.register(app)


def main() -> None:
    """Run the command line; the entry point of the installed script."""
    try:
        app()
    except Fc7Error as error:
        say(f"fc7: {error}")
        sys.exit(FAILED)
    except KeyboardInterrupt:
        say("fc7: interrupted; what was committed is kept, and the same command continues")
        sys.exit(INTERRUPTED)
    except Exception as error:
        # fc7.indexing stands below the engine and has an error of its own.
        if type(error).__name__ == "IndexingError":
            say(f"fc7: {error}")
            sys.exit(FAILED)
        raise


if __name__ == "__main__":
    main()
