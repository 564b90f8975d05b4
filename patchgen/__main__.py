"""``python -m patchgen``, and the program itself: as little as can be before Ctrl-C is heard."""

import sys


def main() -> None:
    """Entry point; see ``manifests.support.console.run_program`` for exit statuses."""
    try:
        from patchgen.cli import main as run  # noqa: PLC0415 - importing takes long enough to be interrupted
    except KeyboardInterrupt:
        print("patchgen: interrupted", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
