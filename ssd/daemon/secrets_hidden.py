"""Configuration as it may be shown: what looks like a secret is not in it.

The daemons' own settings name files and hold no secret. A method's configuration is its author's and may hold
anything, and people paste a join token or a key where its file's name belongs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Json = Any
HIDDEN = "(hidden)"
_SECRET_NAME = re.compile(
    r"(?:^|[_-])(?:token|secret|password|passwd|passphrase|credentials?|api[_-]?key|access[_-]?key)$",
    re.IGNORECASE,
)
_SECRET_TEXT = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY|ssdjoin\d+_|^\w+://[^/@\s]*:[^/@\s]+@")
"""A PEM key, a join token (`ssd.trust.join_token`), an address with a password in it."""


def without_secrets(value: Json, name: str = "") -> Json:
    """A copy of a tree of JSON values in which `HIDDEN` stands for each secret.

    Args:
        value: any JSON value.
        name: the key it stands under.
    """
    if isinstance(value, Mapping):
        return {key: without_secrets(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(item, name) for item in value]
    secret = value not in (None, "", False, True) and _SECRET_NAME.search(name)
    told = isinstance(value, str) and _SECRET_TEXT.search(value)
    return HIDDEN if secret or told else value
