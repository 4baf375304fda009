"""What went wrong with TLS, and which of its files to look at.

Who is refused for a certificate is not refused for good: certificates are renewed, on either side,
while workers are connected. It counts as a refused login.
"""

import ssl

from openworkflow.backend.url import Dsn
from openworkflow.core.errors import BackendError, ConnectionLost, Fault

_CERT_HAS_EXPIRED, _HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH = 10, 62, 64
"""Numbers of OpenSSL's X509_V_ERR_*."""
_FILES = ("PEM", "X509")
"""Parts of OpenSSL that read files."""
_OF_A_CERTIFICATE = ("CERTIFICATE", "UNKNOWN_CA", "DECRYPT_ERROR")
"""In the server's alerts: it is ours that it does not like."""


def tls_error(error: BaseException) -> ssl.SSLError | None:
    """The error of TLS that this one is, or comes from.

    What a server thinks of our certificate arrives after the handshake (TLS 1.3), so that the
    driver takes it for a connection that was closed.
    """
    for each in (error, error.__cause__, error.__context__):
        if isinstance(each, ssl.SSLError):
            return each
    return None


def tls_failure(error: ssl.SSLError, dsn: Dsn) -> BackendError:
    """The error to raise for it."""
    said = " ".join(str(error).split())
    if isinstance(error, ssl.SSLCertVerificationError):
        return BackendError(
            f"the TLS certificate of PostgreSQL at {dsn.address} was refused ({said}); "
            f"{_advice(error)}"
        ).of(Fault.SERVER)
    reason = error.reason or ""
    if "ALERT" in reason and any(word in reason for word in _OF_A_CERTIFICATE):
        return BackendError(
            f"PostgreSQL at {dsn.address} refused the TLS certificate of this program ({said}); "
            "check sslcert and sslkey in the database URL, when that certificate expires, and "
            "ssl_ca_file of the server"
        ).of(Fault.SERVER)
    if error.library in _FILES or "PEM" in reason:
        return BackendError(
            f"a file for TLS with PostgreSQL at {dsn.address} cannot be used ({said}); check "
            f"{_named(dsn)} in the database URL"
        ).of(Fault.SERVER)
    return ConnectionLost(
        f"TLS with PostgreSQL at {dsn.address} broke off ({said}); if it happens again, look at "
        "what is in between, and at ssl_min_protocol_version of the server"
    )


def _advice(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == _CERT_HAS_EXPIRED:
        return "have it renewed on the server, and pg_reload_conf() called there"
    if error.verify_code in (_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH):
        return "the database URL has to have the host name that is in the certificate"
    return "check that sslrootcert in the database URL is of the authority that signed it"


def _named(dsn: Dsn) -> str:
    return " and ".join(name for name, _ in dsn.tls) or "sslrootcert"
