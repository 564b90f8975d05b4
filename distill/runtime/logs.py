"""Print the log lines of ``distill`` on the console."""

import logging

from manifests.support.console import detail, note, say


class _ConsoleHandler(logging.Handler):
    """Prints INFO lines, except with ``--quiet``. Prints DEBUG lines only with ``--verbose``."""

    to_stderr = False

    def emit(self, record: logging.LogRecord) -> None:
        write = detail if record.levelno < logging.INFO else note if self.to_stderr else say
        write(record.getMessage())


_HANDLER = _ConsoleHandler()


def log_to_console(*, to_stderr: bool) -> None:
    """From now on, print the log lines of ``distill``: on stderr if ``to_stderr``, else on stdout."""
    _HANDLER.to_stderr = to_stderr
    logger = logging.getLogger("distill")
    logger.addHandler(_HANDLER)
    logger.setLevel(logging.DEBUG)
