"""The host's own certificate authority: what lets the gateway see the requests inside an agent's TLS.

`STATE/gateway/ca.key` (the gateway's alone, 0600), `ca.pem`, and `bundle.pem`: the system's roots and this one, for the
agents. Certificates for hosts are made when they are first asked for, kept in memory, and end soon.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import ssl
import time
from collections import OrderedDict
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from clawback.enforcement.gateway.given import BUNDLE
from clawback.enforcement.policy.names import address_of
from clawback.enforcement.policy.ownership import give
from clawback.errors import InvalidInput

__all__ = ["Authority", "prepare"]

_KEY, _CERTIFICATE = "ca.key", "ca.pem"
_YEARS = 5
_RENEW_DAYS = 30
_LEAF_HOURS = 48
_FRESH_SECONDS = 12 * 3600.0
_MOST_LEAVES = 256
_SKEW = dt.timedelta(hours=1)
_PEM = serialization.Encoding.PEM


def prepare(state: Path, *, uid: int | None, extra: Path | None = None) -> None:
    """Make what is missing or about to end in `STATE/gateway`, and the bundle of it. Before privileges are dropped.

    `extra` is a PEM file of further roots that destinations are verified against. `InvalidInput` where it is unsound.
    """
    folder = state / "gateway"
    folder.mkdir(mode=0o755, exist_ok=True)
    if not _sound(folder):
        key = ec.generate_private_key(ec.SECP256R1())
        private = serialization.PrivateFormat.PKCS8
        _write(folder / _KEY, key.private_bytes(_PEM, private, serialization.NoEncryption()), 0o600, uid)
        _write(folder / _CERTIFICATE, _root(key).public_bytes(_PEM), 0o644, None)
    elif uid is not None:
        give(folder / _KEY, uid, uid)
    roots = [(folder / _CERTIFICATE).read_bytes()]
    system = ssl.get_default_verify_paths().cafile
    if system is not None:
        roots.append(Path(system).read_bytes())
    if extra is not None:
        try:
            text = extra.read_bytes()
            x509.load_pem_x509_certificates(text)
        except (OSError, ValueError) as error:
            raise InvalidInput(f"gateway.upstream_ca: {extra}: {error}", hint="a file of PEM certificates") from None
        roots.append(text)
    bundle = b"\n".join(root.strip() for root in roots) + b"\n"
    # Sandboxes that run have this very file mounted: a new one would leave them with a deleted one for nothing.
    if not (state / BUNDLE).is_file() or (state / BUNDLE).read_bytes() != bundle:
        _write(state / BUNDLE, bundle, 0o644, None)


class Authority:
    """Gives out a TLS context for each host. Made after `prepare`, by whoever may read the key."""

    def __init__(self, state: Path) -> None:
        folder = state / "gateway"
        self._key = _load_key(folder)
        self._certificate = x509.load_pem_x509_certificate((folder / _CERTIFICATE).read_bytes())
        # One key for all hosts, in this process alone: making one for each would cost more than signing.
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._contexts: OrderedDict[str, tuple[float, ssl.SSLContext]] = OrderedDict()
        self._make("clawback.invalid")  # loads what is only loaded when used, which may be closed to us later

    def context(self, host: str) -> ssl.SSLContext:
        """For serving as `host`, a normal name or address."""
        now = time.monotonic()
        made, context = self._contexts.get(host, (0.0, None))
        if context is None or now - made > _FRESH_SECONDS:
            context = self._make(host)
            self._contexts[host] = (now, context)
            while len(self._contexts) > _MOST_LEAVES:
                self._contexts.popitem(last=False)
        self._contexts.move_to_end(host)
        return context

    def _make(self, host: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.num_tickets = 0  # a resumed session would have been checked by nobody
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        private = serialization.PrivateFormat.PKCS8
        pem = self._leaf(host).public_bytes(_PEM) + self._certificate.public_bytes(_PEM)
        pem += self._leaf_key.private_bytes(_PEM, private, serialization.NoEncryption())
        # `ssl` reads keys from files only: this one is in memory, and gone when it has been read.
        fd = os.memfd_create("leaf", os.MFD_CLOEXEC)
        try:
            os.write(fd, pem)
            context.load_cert_chain(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
        return context

    def _leaf(self, host: str) -> x509.Certificate:
        address = address_of(host)
        name: x509.GeneralName = x509.DNSName(host) if address is None else x509.IPAddress(ipaddress.ip_address(host))
        now = dt.datetime.now(dt.UTC)
        issuer = self._certificate.public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Clawback gateway")]))
            .issuer_name(self._certificate.subject)
            .public_key(self._leaf_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(now + dt.timedelta(hours=_LEAF_HOURS))
            .add_extension(x509.SubjectAlternativeName([name]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._leaf_key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)  # type: ignore[arg-type]  # it is the P-256 key that `prepare` made
            .sign(self._key, hashes.SHA256())
        )


def _root(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Clawback gateway of this host")])
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + dt.timedelta(days=365 * _YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _sound(folder: Path) -> bool:
    """There is a key, with its certificate, good for a while."""
    try:
        key = _load_key(folder)
        certificate = x509.load_pem_x509_certificate((folder / _CERTIFICATE).read_bytes())
    except (OSError, ValueError, TypeError):
        return False
    left = certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)
    return certificate.public_key() == key.public_key() and left > dt.timedelta(days=_RENEW_DAYS)


def _load_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key((folder / _KEY).read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("not an elliptic-curve key")
    return key


def _write(path: Path, data: bytes, mode: int, uid: int | None) -> None:
    """Whole or not at all, and never readable by more than in the end."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
    beside.chmod(mode)
    if uid is not None:
        give(beside, uid, uid)
    beside.rename(path)
