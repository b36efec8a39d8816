"""The entry point of the command line ``mi-jax``, and the table of its verbs.

This module and the modules of verbs import nothing heavy, so that ``--help`` answers at once. Each
verb imports what it needs when it works.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence

from mi_jax.basics.errors import Interrupted, MiJaxError, NotAllowedError
from mi_jax.basics.modules import allow, not_allowed
from mi_jax.cli import histories, inspection, reading, training
from mi_jax.cli.verbs import Verb, beside, refuse_overrides

VERBS: Mapping[str, Verb] = {
    **training.VERBS,
    **histories.VERBS,
    **reading.VERBS,
    **inspection.VERBS,
}
"""Every verb by name, in the order in which ``mi-jax --help`` lists them."""

_DETAILS = """\
Examples:
  mi-jax run grokking             train, measure, date and plot; ends with report.html
  mi-jax list experiments         experiments that come with the package
  mi-jax info checkpoints/grokking

mi-jax VERB --help explains one verb. Results are printed on stdout, progress and errors on stderr.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: words of the command after ``mi-jax``; those of this process by default.

    Returns:
        The exit status: 0; 1 if ``verify`` found damage, ``reproduce`` found a difference, or a run
        of ``sweep`` failed; 2 for an error that the user can fix; 130 after a signal.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    options, overrides = _parser(words).parse_known_args(words)
    verb = VERBS[options.verb]
    try:
        if not verb.takes_overrides:
            refuse_overrides(overrides, options.verb)
        if getattr(options, "allow_module", None):
            allow(options.allow_module, beside(options))
        return verb.handle(options, overrides)
    except Interrupted as error:
        print(f"mi-jax: {error}. To resume:\n  mi-jax {shlex.join(words)}", file=sys.stderr)
        return 130
    except NotAllowedError as error:
        allowed = [word for name in error.modules for word in ("--allow-module", name)]
        command = f"mi-jax {shlex.join([*words, *allowed])}"
        error = not_allowed(error.modules, error.recorded, command, beside(options))
        print(f"mi-jax: error: {error}", file=sys.stderr)
        return 2
    except MiJaxError as error:
        print(f"mi-jax: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader (`| head`) has closed the pipe: Python's own flush at exit must not fail on it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        # A full disk, a path that is too long, a folder without permission.
        place = f"{error.filename}: " if error.filename else ""
        print(
            f"mi-jax: error: {place}{error.strerror or error}. What was stored before is kept."
            " Free disk space, or give a path that can be read and written, and run the same"
            " command again.",
            file=sys.stderr,
        )
        return 2


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """Make the parser of a command; only the verbs among its words get their options."""
    parser = argparse.ArgumentParser(
        "mi-jax",
        description="Train small networks and see when and how a mechanism forms in them.",
        epilog=_DETAILS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in VERBS.items():
        subparser = verbs.add_parser(
            name,
            help=verb.summary,
            description=f"{verb.summary[0].upper()}{verb.summary[1:]}.",
            epilog=verb.details,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            add_help=verb.adds_help,
        )
        # The options of the other verbs are not needed, and take time to declare.
        if name in words:
            verb.add_options(subparser)
        # The verbs that answer --help themselves print it through their own parser.
        subparser.set_defaults(parser=subparser)
    return parser
