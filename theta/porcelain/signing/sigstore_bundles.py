"""Sigstore bundles with a DSSE envelope, signed by an elliptic curve key, as Model Signing writes them.

The envelope is that of https://github.com/secure-systems-lab/dsse (v1.0.0), the bundle version 0.3 of
https://docs.sigstore.dev/about/bundle/.  The cryptography is that of the package ``cryptography``.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
from pathlib import Path
from typing import Any, Final

from theta.errors import MALFORMED, BadSignatureError, NotFoundError, UsageError

_MEDIA: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD: Final = "application/vnd.in-toto+json"
_HASHES: Final = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}
_MOST_KEY: Final = 1 << 16
_MOST_PARTS: Final = 1024
"""Objects and lists in a bundle, which is parsed before anything of it is proven; the statement is a text."""


def private_key(file: Path, password: str | None) -> Any:
    """Read a PEM private key on P-256, P-384 or P-521; raises :class:`UsageError` for anything else."""
    secret = password.encode() if password is not None else None
    try:
        key = _module("serialization").load_pem_private_key(_read(file), secret)
    except (ValueError, TypeError, _module("exceptions").UnsupportedAlgorithm) as error:
        raise UsageError(f"{file.name} is no private key that can be read: {error}") from error
    _hash(key, file.name)
    return key


def public_key(file: Path) -> Any:
    """Read a PEM public key on P-256, P-384 or P-521; raises :class:`UsageError` for anything else."""
    try:
        key = _module("serialization").load_pem_public_key(_read(file))
    except (ValueError, TypeError, _module("exceptions").UnsupportedAlgorithm) as error:
        raise UsageError(f"{file.name} is no public key that can be read: {error}") from error
    _hash(key, file.name)
    return key


def _read(file: Path) -> bytes:
    if not file.is_file():
        raise NotFoundError(f"there is no key {file}")
    if file.stat().st_size > _MOST_KEY:
        raise UsageError(f"{file.name} is too large to be a key")
    return file.read_bytes()


def _module(name: str) -> Any:
    path = {
        "serialization": "hazmat.primitives.serialization",
        "hashes": "hazmat.primitives.hashes",
        "ec": "hazmat.primitives.asymmetric.ec",
        "exceptions": "exceptions",
    }[name]
    try:
        return importlib.import_module(f"cryptography.{path}")
    except ImportError as error:
        raise NotFoundError(
            "keys need the package cryptography", hint="pip install 'theta-vcs[sign]'"
        ) from error


def _hash(key: Any, name: str) -> Any:
    """Return the hash that goes with the curve of a key; raises :class:`UsageError` for other keys."""
    curve = getattr(getattr(key, "curve", None), "name", "")
    if curve not in _HASHES:
        raise UsageError(f"{name} is no key on P-256, P-384 or P-521")
    return getattr(_module("hashes"), _HASHES[curve])()


def hint_of(public: Any) -> str:
    """Return the name of a public key in bundles: the SHA-256 of its PEM form."""
    forms = _module("serialization")
    pem = public.public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()


def signed(payload: bytes, key: Any) -> bytes:
    """Return a bundle of a statement as JSON."""
    signature = key.sign(_pae(payload), _module("ec").ECDSA(_hash(key, "the key")))
    whole = {
        "mediaType": _MEDIA,
        "verificationMaterial": {"publicKey": {"hint": hint_of(key.public_key())}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return json.dumps(whole, separators=(",", ":")).encode()


def key_of(bundle: bytes) -> str:
    """Return the name of the key that a bundle says it is signed with; raises :class:`BadSignatureError`."""
    return _parts(bundle)[2]


def opened(bundle: bytes, public: Any) -> bytes:
    """Return the statement in a bundle that is signed with this key; raises :class:`BadSignatureError`."""
    payload, signature, _ = _parts(bundle)
    try:
        public.verify(signature, _pae(payload), _module("ec").ECDSA(_hash(public, "the key")))
    except _module("exceptions").InvalidSignature as error:
        raise BadSignatureError("the signature is not of this statement") from error
    return payload


def _parts(bundle: bytes) -> tuple[bytes, bytes, str]:
    """Return payload, signature and name of the key."""
    if bundle.count(b"[") + bundle.count(b"{") > _MOST_PARTS:
        raise BadSignatureError("this is no bundle of Model Signing: it has too many parts")
    try:
        whole = json.loads(bundle)
        envelope = whole["dsseEnvelope"]
        (one,) = envelope["signatures"]
        if (whole["mediaType"], envelope["payloadType"]) != (_MEDIA, _PAYLOAD):
            raise ValueError("another kind of bundle")
        material = whole["verificationMaterial"].get("publicKey") or {}
        payload, signature = (
            base64.b64decode(text, validate=True) for text in (envelope["payload"], one["sig"])
        )
        return payload, signature, str(material.get("hint") or "")
    except MALFORMED as error:
        raise BadSignatureError("this is no bundle of Model Signing with a key") from error


def _pae(payload: bytes) -> bytes:
    """Return the bytes that are signed: DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %b %d %b" % (len(_PAYLOAD), _PAYLOAD.encode(), len(payload), payload)
