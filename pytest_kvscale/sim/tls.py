"""TLS for the embedded API: a certificate authority made for one run, and what it signs.

The authority's key never leaves the process; with the process it is gone.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import trustme

ALWAYS = ("localhost", "127.0.0.1", "::1")
"""Names and addresses every server certificate is for."""


class Authority:
    """A certificate authority: signs the server's certificate and those of clients."""

    def __init__(self) -> None:
        import trustme

        self._ca = trustme.CA(organization_name="pytest-kvscale embedded cluster")

    @property
    def certificate(self) -> bytes:
        """Its own certificate (PEM): what a client has to trust."""
        return self._ca.cert_pem.bytes()

    def server_context(self, *names: str) -> ssl.SSLContext:
        """TLS for a server of these names or addresses, which takes client certificates too.

        A client that shows a certificate of another authority is turned away in the handshake;
        one that shows none is let through, it may have a token.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        wanted = dict.fromkeys((*ALWAYS, socket.gethostname(), *names))
        self._ca.issue_cert(*wanted, common_name="kube-apiserver").configure_cert(context)
        self._ca.configure_trust(context)
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def issue_client(self, user: str, group: str) -> tuple[bytes, bytes]:
        """A client's certificate (with what leads to the authority) and key, both PEM."""
        issued: trustme.LeafCert = self._ca.issue_cert(common_name=user, organization_name=group)
        chain = b"".join(each.bytes() for each in issued.cert_chain_pems)
        return chain, issued.private_key_pem.bytes()
