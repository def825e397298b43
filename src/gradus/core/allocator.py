"""Memory that a process was given stays with it: page faults otherwise eat 15 to 50 % of a step on the CPU.

glibc maps big blocks afresh and gives them back at once, so every step's tensors are zeroed and mapped page
by page again. A command asks for this in its own process, first thing; `import gradus` never does.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_NEVER = 2**31 - 1
_PAD = 256 << 20


def keep_memory() -> bool:
    """Tells glibc's malloc to map nothing separately, to give nothing back, and to grow by 256 MiB at a time.

    Returns whether it did: elsewhere than on glibc it does nothing. Blocks are never returned to the system
    afterwards, so the process stays at its peak.
    """
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - only glibc has it
        mallopt = library.mallopt
    except (OSError, AttributeError, TypeError):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _PAD))
    done = [mallopt(option, value) == 1 for option, value in settings]
    return all(done)
