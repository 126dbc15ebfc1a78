"""The ``srlm`` command, and ``python -m srlm``: what is set once a process."""

import os
import signal
import sys


def main() -> None:
    """Run ``srlm.cli.main``; a bug, or an interruption while it is imported, has its words too."""
    listens = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if listens:  # an exception can be lost in an import's callbacks; there is nothing to keep yet
        signal.signal(signal.SIGINT, _stop)
    from srlm import boundary, cli

    boundary.printable()
    sys.excepthook = boundary.bug
    if listens:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main()


def _stop(*_: object) -> None:
    os.write(2, b"\nInterrupted.\n")
    os._exit(130)


if __name__ == "__main__":
    main()
