"""Where log lines go: to stderr while someone waits for us, then to syslog(3)."""

import logging
import sys
import syslog
from types import TracebackType

_PRIORITY = {
    logging.DEBUG: syslog.LOG_DEBUG,
    logging.INFO: syslog.LOG_INFO,
    logging.WARNING: syslog.LOG_WARNING,
    logging.ERROR: syslog.LOG_ERR,
    logging.CRITICAL: syslog.LOG_CRIT,
}
_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)  # by the number of -v


class _Stderr(logging.Formatter):
    """`unionfs: warning: ...`, as messages of commands look."""

    def format(self, record: logging.LogRecord) -> str:
        return f"unionfs: {record.levelname.lower()}: {super().format(record)}"


class _Syslog(logging.Handler):
    """Lines for the journal; without a socket at /dev/log they are lost, as syslog(3) has it."""

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record).encode("utf-8", "backslashreplace").decode()  # any name
        syslog.syslog(_PRIORITY.get(record.levelno, syslog.LOG_NOTICE), text)


def to_stderr(verbosity: int) -> None:
    """Log to stderr; *verbosity* is the number of -v."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Stderr())
    logging.basicConfig(
        level=_LEVELS[min(verbosity, len(_LEVELS) - 1)], handlers=[handler], force=True
    )


def to_syslog() -> None:
    """Log to syslog from now on, as a daemon named unionfs; the level stays."""
    syslog.openlog("unionfs", syslog.LOG_PID | syslog.LOG_NDELAY, syslog.LOG_DAEMON)
    root = logging.getLogger()
    for handler in root.handlers:
        root.removeHandler(handler)
    root.addHandler(_Syslog())
    sys.excepthook = _log_death


def _log_death(
    kind: type[BaseException], exc: BaseException, traceback: TracebackType | None
) -> None:
    """Log what ends the process; nobody reads its stderr any more."""
    logging.getLogger(__name__).critical("daemon failed", exc_info=(kind, exc, traceback))
