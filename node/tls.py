"""TLS between nodes: version 1.3, both sides shown to belong to the mesh by its CA, and who the other side is.

Trust comes from the mesh's own CA and from nowhere else. Hostnames are not checked: a node's address changes, its id
does not, and `peer_of` reads the id from the certificate whose key the other side has just proved to hold.

A peer port asks for a client certificate without insisting, because a newcomer has none yet when it enrols. So whoever
serves anything but enrolment there asks `peer_of` first, and turns away None.

Sessions are not resumed: a kept connection lasts for days, and each new one shall be judged by the certificate and the
revocations of its day. Nothing here needs `cryptography`. Tests: tests/node/test_tls.py.
"""

import ssl
from typing import Any, cast

from node.errors import Problem
from node.identity import Identity, public_key_of
from node.mesh import BadCertificate, Member, read_member

# The codes of OpenSSL's X509_verify_cert that have a cause of their own.
_NOT_YET_VALID, _EXPIRED = 9, 10


def server_context(me: Identity) -> ssl.SSLContext:
    """For the peer port. A client certificate is optional, but one that is shown must be of my mesh.

    Raises Problem home_damaged, as client_context does, when my certificates or key can't be used.
    """
    context = _my_context(ssl.PROTOCOL_TLS_SERVER, me)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = 0
    return context


def api_context(me: Identity) -> ssl.SSLContext:
    """For the API beyond loopback: clients check this node's certificate with the mesh's ca.crt, and show a token."""
    context = _my_context(ssl.PROTOCOL_TLS_SERVER, me)
    context.verify_mode = ssl.CERT_NONE
    return context


def client_context(me: Identity) -> ssl.SSLContext:
    """For connections to peers."""
    return _my_context(ssl.PROTOCOL_TLS_CLIENT, me)


def newcomer_context(ca: bytes | None) -> ssl.SSLContext:
    """For a machine that has no certificate yet. Without `ca` (DER) the other side may be anybody."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, ca)


def peer_of(connection: ssl.SSLObject | ssl.SSLSocket) -> Member | None:
    """Who is at the other end; None when it showed no certificate. Raises BadCertificate.

    After a handshake in one of this module's contexts the CA's signature and the dates have been checked. The CA may
    also certify what is no node (servers of etcd or PostgreSQL): that is a BadCertificate here.
    """
    certificate = connection.getpeercert(binary_form=True)
    if certificate is None:
        return None
    checked = cast(dict[str, Any], connection.getpeercert())
    if not checked:
        raise BadCertificate("nobody has checked the other side's certificate")
    uris = [value for kind, value in checked.get("subjectAltName", ()) if kind == "URI"]
    try:
        node_key = public_key_of(certificate)
    except ValueError as error:
        raise BadCertificate(str(error)) from None
    return read_member(uris, node_key, ssl.cert_time_to_seconds(checked["notAfter"]) * 1000)


def examine(me: Identity) -> Member:
    """Who I am, after a handshake with myself in memory: what peers will see is right, or I hear it first.

    Raises Problem: certificate_expired, certificate_refused.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context(me).wrap_bio(to_server, to_client, server_side=True)
    client = client_context(me).wrap_bio(to_client, to_server)
    try:
        for side in (client, server, client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue  # the other side's turn
        member = peer_of(server)
    except (ssl.SSLError, BadCertificate) as error:
        raise _refused(error) from error
    if member is None or member.node_id != me.node_id:
        raise _refused(BadCertificate("it names another node"))
    return member


def _refused(error: ssl.SSLError | BadCertificate) -> Problem:
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in (_EXPIRED, _NOT_YET_VALID):
        return Problem(
            403,
            "certificate_expired",
            f"this node's certificate is out of its dates: {error.verify_message}",
            "check this machine's clock; if it is right, join again from a new home, with a new invitation",
        )
    return Problem(
        403,
        "certificate_refused",
        f"this node's certificate would be refused by its peers: {error}",
        "restore node.crt and ca.crt from a backup, or join again from a new home",
    )


def _context(protocol: int, ca: bytes | None) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    # Python 3.13 sets this by itself; a certificate must not be good on one version and bad on another.
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if ca is None:
        context.verify_mode = ssl.CERT_NONE
    else:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=ca)
    return context


def _my_context(protocol: int, me: Identity) -> ssl.SSLContext:
    try:
        context = _context(protocol, me.ca)
        context.load_cert_chain(me.home.certificate, me.home.key)
    except (ssl.SSLError, OSError) as error:
        raise Problem(
            500,
            "home_damaged",
            f"the certificates and the key in {me.home.path} can't be used: {error}",
            "restore the whole home from a backup",
        ) from error
    return context
