"""Run the command line for ``python -m patchgen``."""

from patchgen.cli import main

if __name__ == "__main__":
    main()
