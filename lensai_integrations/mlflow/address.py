"""Names and addresses as they may be shown and stored.

A tracking URI may carry a password, and MLflow, requests and database drivers repeat the URI in their error messages.
Whatever is put into a message or a file goes through here first. Artifact names keep to letters, digits, `.`, `_` and
`-`: names with `#`, `?` or `%` overwrite each other on a tracking server or cannot be downloaded again.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from lensai_integrations.errors import InputError

#: Where a baseline lives below a run or a logged model, unless the caller says otherwise.
DEFAULT_PATH = "lensai"

#: One or more directory names, none of them `.` or `..`.
PATH_PATTERN = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)*"

# A user name and a password stand between "://" and the last "@"; an address whose path follows at once has none.
_USER_INFO = re.compile(r"://(?!/)(.*)@")
# Network errors come wrapped three times; what happened stands at the end: "... [Errno 111] Connection refused")".
_NETWORK_ROOT = re.compile(r"\(Caused by \w+\(.*: ((?!.*://)[^'\"]{3,200})['\"]\)\)$")
_ANY_USER_INFO = re.compile(r"://[^\s/@]*@")
# Characters of a long cause that are kept at either end.
_LONGEST_PART = 200


def checked_path(artifact_path: str) -> str:
    """The artifact path, if it is one that every artifact store keeps as it is.

    Raises:
        InputError: If it holds other characters than letters, digits, `.`, `_`, `-` and `/`, or is not relative.

    Example:
        >>> checked_path("lensai/best")
        'lensai/best'
    """
    if not re.fullmatch(PATH_PATTERN, artifact_path):
        raise InputError(
            f"artifact_path={artifact_path!r} cannot be used; pass a relative path of letters, digits, "
            "'.', '_' and '-', such as 'lensai'"
        )
    return artifact_path


def without_credentials(uri: str) -> str:
    """The URI without user name, password and query, which may hold a password too.

    Example:
        >>> without_credentials("https://ada:secret@mlflow.example:5000/team?token=abc")
        'https://mlflow.example:5000/team'
        >>> without_credentials("sqlite:///mlflow.db")
        'sqlite:///mlflow.db'
    """
    return re.split(r"[?#]", _USER_INFO.sub("://", uri), maxsplit=1)[0]


def cause(error: BaseException, uri: str) -> str:
    """What an error says, on one line, shortened, and without the credentials of `uri` or of any other address.

    Of a network error it is the innermost part, such as `[Errno 111] Connection refused`.

    Example:
        >>> cause(OSError("cannot reach http://ada:secret@host/api"), "http://ada:secret@host")
        'OSError: cannot reach http://host/api'
    """
    text = " ".join(str(error).split())
    root = _NETWORK_ROOT.search(text)
    text = root.group(1) if root else text
    text = text.replace(uri, without_credentials(uri))
    text = _ANY_USER_INFO.sub("://", text)
    for secret in _secrets(uri):
        text = text.replace(secret, "***")
    if len(text) > 2 * _LONGEST_PART:
        text = f"{text[:_LONGEST_PART]} ... {text[-_LONGEST_PART:]}"
    kind = type(error).__name__
    return text if root else f"{kind}: {text}" if text else kind


def _secrets(uri: str) -> list[str]:
    """The password and the values of the query, as they stand and decoded; very short ones would match anything."""
    found = _USER_INFO.search(uri)
    password = found.group(1).partition(":")[2] if found else ""
    values = re.findall(r"[?&][^=&#]+=([^&#]+)", uri)
    return [text for raw in (password, *values) for text in {raw, unquote(raw)} if len(text) > 3]
