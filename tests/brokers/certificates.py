"""Certificates for one test run, made by ``openssl``, so that the repository contains no secrets."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple


class Certificate(NamedTuple):
    """The files of a self-signed certificate, which is its own authority."""

    file: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """Return the TLS context of a server that uses this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file, self.key)
        return context


def make_certificate(folder: Path, subject: str) -> Certificate:
    """Make a certificate for ``IP:127.0.0.1`` or ``DNS:some.host``."""
    openssl = shutil.which("openssl")
    assert openssl is not None, "these tests make certificates: install openssl"
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    options += ["-subj", "/CN=pabal-test", "-addext", f"subjectAltName={subject}"]
    options += ["-keyout", str(made.key), "-out", str(made.file)]
    subprocess.run([openssl, "req", "-x509", *options], check=True, capture_output=True)
    return made
