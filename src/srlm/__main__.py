"""``python -m srlm``: the command line, for launchers that start modules."""

from srlm.cli import main

if __name__ == "__main__":
    main()
