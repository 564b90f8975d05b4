"""Run the program; little happens before Ctrl-C is handled."""

import sys


def main() -> None:
    """Run the command line; see ``manifests.support.console.run_program`` for exit statuses."""
    try:
        from patchgen.cli import main as run  # noqa: PLC0415 - importing takes long enough to be interrupted
    except KeyboardInterrupt:
        print("patchgen: interrupted", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
