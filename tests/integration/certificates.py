"""A certificate authority for one test, and the certificates that it signs."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

AUTHORITY_KEY_USAGE = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """The PEM files of an authority, a server and a client."""

    authority: Path
    certificate: Path
    key: Path
    client: Path
    """The file with the client's certificate and key."""


def certificates(directory: Path, host: str, *, client: str = "client") -> Certificates:
    """Create an authority, and certificates for the server `host` and for `client`.

    From Python 3.13 the default verification is strict (RFC 5280): it requires the key identifiers
    and the authority's key usage.
    """
    authority_key, key, client_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    issuer = _name(f"Authority for {host}")
    authority = (
        _begun(issuer, issuer, authority_key.public_key(), authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(AUTHORITY_KEY_USAGE, critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    certificate = (
        _begun(_name(host), issuer, key.public_key(), authority_key)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    client_certificate = _begun(_name(client), issuer, client_key.public_key(), authority_key).sign(
        authority_key, hashes.SHA256()
    )
    directory.mkdir(parents=True)
    made = Certificates(
        authority=directory / "ca.pem",
        certificate=directory / "server.pem",
        key=directory / "key.pem",
        client=directory / "client.pem",
    )
    made.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    made.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(_private(key))
    made.client.write_bytes(
        client_certificate.public_bytes(serialization.Encoding.PEM) + _private(client_key)
    )
    return made


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    authority: ec.EllipticCurvePrivateKey,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),
            critical=False,
        )
    )
