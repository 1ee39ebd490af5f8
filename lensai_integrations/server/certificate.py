"""What the server proves itself with."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from lensai_integrations.errors import InputError


class Certificate:
    """A certificate and its key, as TLS uses them.

    Attributes:
        context: What connections are made with.

    Args:
        cert: File of the certificate.
        key: File of its key; None if it is in the same.

    Raises:
        InputError: If they cannot be read, or do not belong together.
    """

    def __init__(self, cert: str | Path | None, key: str | Path | None) -> None:
        if cert is None:
            raise InputError(f"tls_key={str(key)!r} is of no use without a certificate: pass --tls-cert, too")
        self._cert, self._key = Path(cert), None if key is None else Path(key)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # TLS 1.2 or newer
        self.context.set_alpn_protocols(["http/1.1"])
        self.load()

    def load(self) -> None:
        """Read the files; connections from now on are made with what is in them.

        Raises:
            InputError: If they cannot be read, or do not belong together; those from before then stay.
        """
        for name, path in {"tls_cert": self._cert, "tls_key": self._key}.items():
            if path is not None and not (path.is_file() and os.access(path, os.R_OK)):  # a pipe would be waited for
                raise InputError(f"{name}={str(path)!r} cannot be read: pass a PEM file that is there and may be read")
        try:
            _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._cert, self._key)  # half of a wrong pair would stay
            _load(self.context, self._cert, self._key)
        except (OSError, ValueError) as error:
            raise InputError(
                f"tls_cert={str(self._cert)!r} and tls_key={str(self._key or self._cert)!r} are not a certificate and"
                f" its key, without a password, as PEM: {error}"
            ) from error


def _load(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    context.load_cert_chain(cert, key, password=lambda: "")  # else OpenSSL asks at the terminal
