"""How many files and connections the process may have open."""

from __future__ import annotations

import logging
import resource

from ssd.daemon.logs import event as log_event

log = logging.getLogger(__name__)

OWN_FILES = 256
"""Journal, blobs, staged bodies, logs and libraries."""


def raise_limit(connections: int) -> int:
    """Raise the soft limit on open files to the hard one; the limit that now holds.

    Says so in the log if `connections` and the process's own files do not fit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (ValueError, OSError):
            # Some systems name a hard limit that nobody may have.
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < connections + OWN_FILES:
        log_event(
            log,
            logging.WARNING,
            "few_open_files",
            limit=soft,
            detail=f"limits.max_connections is {connections} but the process may open {soft} files: raise its hard"
            " limit (ulimit -Hn, LimitNOFILE in systemd) or lower limits.max_connections",
        )
    return soft
