"""The certificate: what is wrong with it is told before anything is opened."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import threading

import pytest
from certificates import make

from lensai_integrations.errors import InputError
from lensai_integrations.server.serving import Certificate, serve


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("one", "two"):
        make(folder / f"{name}.pem", folder / f"{name}.key")
    make(folder / "locked.pem", folder / "locked.key", password="secret")
    (folder / "both.pem").write_bytes((folder / "one.key").read_bytes() + (folder / "one.pem").read_bytes())
    (folder / "none.pem").write_text("no certificate")
    os.mkfifo(folder / "pipe.pem")
    return folder


def shown(certificate):
    """The certificate a client is shown, as DER."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        server = threading.Thread(target=lambda: certificate.context.wrap_socket(ours, server_side=True).close())
        server.start()
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        with client.wrap_socket(theirs) as link:
            found = link.getpeercert(binary_form=True)
        server.join()
    return found


def der(path):
    return ssl.PEM_cert_to_DER_cert(path.read_text().split("-----END PRIVATE KEY-----\n")[-1])


def test_two_files_or_one(files):
    assert shown(Certificate(files / "one.pem", files / "one.key")) == der(files / "one.pem")
    assert shown(Certificate(files / "both.pem", None)) == der(files / "one.pem")


@pytest.mark.parametrize(
    ("cert", "key", "problem"),
    [
        ("nowhere.pem", "one.key", "tls_cert=.*cannot be read"),
        ("one.pem", "nowhere.key", "tls_key=.*cannot be read"),
        ("pipe.pem", "one.key", "tls_cert=.*cannot be read"),
        ("one.pem", "pipe.pem", "tls_key=.*cannot be read"),
        ("one.pem", "two.key", "are not a certificate and its key"),
        ("none.pem", "one.key", "are not a certificate and its key"),
        ("one.pem", None, "are not a certificate and its key"),
        ("locked.pem", "locked.key", "without a password"),
        (".", "one.key", "tls_cert=.*cannot be read: pass a PEM file"),
        (None, "one.key", "tls_key=.*pass --tls-cert"),
    ],
)
def test_what_is_no_certificate_is_told_before_the_store_is_opened(files, baseline, tmp_path, cert, key, problem):
    with pytest.raises(InputError, match=problem):
        serve(baseline, tmp_path / "store", tls_cert=cert and files / cert, tls_key=key and files / key)
    assert not (tmp_path / "store").exists()


def test_read_again_new_connections_have_the_new_one(files, tmp_path):
    for kind in ("pem", "key"):
        shutil.copy(files / f"one.{kind}", tmp_path / f"now.{kind}")
    certificate = Certificate(tmp_path / "now.pem", tmp_path / "now.key")
    shutil.copy(files / "two.pem", tmp_path / "now.pem")
    with pytest.raises(InputError, match="are not a certificate and its key"):  # only half of it is new
        certificate.load()
    assert shown(certificate) == der(files / "one.pem")
    shutil.copy(files / "two.key", tmp_path / "now.key")
    certificate.load()
    assert shown(certificate) == der(files / "two.pem")
