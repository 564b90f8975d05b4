"""Start the program ``distill``. This module imports little, so that Ctrl-C during the imports prints one line."""

import sys


def main() -> None:
    """Run the program; see ``manifests.support.console.run_program`` for exit statuses."""
    try:
        from distill.cli import main as run  # noqa: PLC0415 - importing takes long enough to be interrupted
    except KeyboardInterrupt:
        print("distill: interrupted", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
