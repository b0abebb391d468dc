"""Ctrl-C while the program is still loading: it ends at once and silently, as any other program does.

Imported before everything else. Once the command runs, :func:`let_commands_handle_them` gives the signal back to
Python, so that commands can tidy up.
"""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def let_commands_handle_them() -> None:
    """Let Ctrl-C raise KeyboardInterrupt from now on."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
