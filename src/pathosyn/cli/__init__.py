"""The command line: which verb, and how each kind of end is told. The verbs' flags are in the modules beside this one, one a verb."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import Protocol

VERBS = {
    "demo": "everything on built-in phantom data; ends with the path of a report",
    "check": "look for faults in a folder of subjects",
    "prepare": "turn folders of NIfTI into one slices.h5, ready to train on",
    "train": "train the generator on a slices.h5; the same command again resumes",
    "insert": "put a lesion into a scan, or draw a scan's own lesion anew",
    "heal": "take the lesion out of a scan",
    "generate": "draw a set of lesions, by a method or a control, on prepared data",
    "export": "write drawn sets for other tools: nnU-Net, BIDS, PNG",
    "evaluate": "measure how good a set is, controls beside it",
}

USERS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}
"""What the operating system refuses because of the user's disk or names, and not because of us."""

OK, FAILURE, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class Verb(Protocol):
    """A parsed command line."""

    def run(self) -> int:
        """Do it; returns the exit code."""


def usage() -> str:
    """The first screen."""
    verbs = "\n".join(f"  {name:<9} {what}" for name, what in VERBS.items())
    return (
        "usage: pathosyn VERB …\n\n"
        "Lesions for MR scans: put one in, take one out, train the generator on your own folder.\n"
        "For research only, not for diagnosis: what it writes is synthetic.\n\n"
        f"{verbs}\n\n"
        "pathosyn VERB --help tells a verb's flags; pathosyn --version the version.\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns 0 done, 1 our own failure (or a reader of our output that has gone), 2 bad input, 130 interrupted."""
    try:
        code = _main(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `| head` has seen enough; nor is the interpreter's own last flush to complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE


def _main(arguments: list[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may hold what the terminal cannot show
    if arguments and arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return OK
    if not arguments:
        print(usage())
        print(f"pathosyn: found no verb; expected one of {', '.join(VERBS)}; pathosyn --help tells what they do", file=sys.stderr)
        return BAD_INPUT
    if arguments[0] in ("-V", "--version"):
        from importlib.metadata import version

        from pathosyn.weights import shipped, terms

        print(f"pathosyn {version('pathosyn')} (Apache-2.0)")
        for weights in shipped().values():
            print(f"weights {weights.name} {weights.version}, sha256 {weights.sha256[:12]}: {weights.what}")
        if terms():
            print(terms())
        return OK
    name, rest = arguments[0], arguments[1:]
    if name not in VERBS:
        print(f"pathosyn: found the verb '{name}'; expected one of {', '.join(VERBS)}; see pathosyn --help", file=sys.stderr)
        return BAD_INPUT
    return _guarded(name, rest)


def _guarded(name: str, arguments: list[str]) -> int:
    from pathosyn.errors import InputError, refuse
    from pathosyn.writing import reason

    try:
        verb: Verb = import_module(f"pathosyn.cli.{name}").parse(arguments)
        return verb.run()
    except InputError as error:
        for fault in error.faults:
            print(f"pathosyn {name}: {fault}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f"pathosyn {name}: interrupted; the same command again goes on where it stopped", file=sys.stderr)
        return INTERRUPTED
    except UnicodeEncodeError as error:
        expected, remedy = "names that every system can read", "rename the file or folder"
        print(f"pathosyn {name}: {refuse(ascii(error.object), found='a name that is not UTF-8', expected=expected, remedy=remedy)}", file=sys.stderr)
        return BAD_INPUT
    except MemoryError as error:
        expected, remedy = "enough for the scan or the batch", "close other programs, or give fewer at once (--train.batch-pixels, --workers)"
        print(f"pathosyn {name}: {refuse('memory', found=f'too little of it ({error})', expected=expected, remedy=remedy)}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        if error.errno not in USERS:
            raise
        where = error.filename or "the output folder"
        expected, remedy = "a folder with room that may be written", "free some space and run the same command again, or give another folder"
        print(f"pathosyn {name}: {refuse(where, found=reason(error), expected=expected, remedy=remedy)}", file=sys.stderr)
        return BAD_INPUT
