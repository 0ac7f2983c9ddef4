"""A service in Python, with PyJWT: mints and verifies tokens, makes and names keys.

Run as `token_peer.py OPERATION` with a JSON array of requests on stdin, where private keys come
in too. Writes the array of answers to stdout.
"""

import base64
import hashlib
import json
import sys
import uuid
from datetime import datetime, timedelta, timezone

import jwt
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec


def key_of(request):
    """The key in the form in which PyJWT takes it: PEM text as it is, a JWK as its key."""
    key = request["key"]
    return jwt.PyJWK(key["jwk"]).key if "jwk" in key else key["pem"]


def mint(request):
    now = datetime.now(timezone.utc)
    claims = {
        "iss": request["issuer"],
        "sub": request["issuer"],
        "aud": request["audience"],
        "iat": now,
        "exp": now + timedelta(minutes=5),
        "jti": str(uuid.uuid4()),
    }
    headers = {"kid": request["kid"]}
    return {"token": jwt.encode(claims, key_of(request), "ES256", headers)}


def mint_unsigned(request):
    claims = {"iss": request["issuer"], "sub": request["issuer"], "aud": request["audience"]}
    return {"token": jwt.encode(claims, None, "none", {"kid": request["kid"]})}


def verify(request):
    try:
        claims = jwt.decode(
            request["token"],
            key_of(request),
            algorithms=["ES256"],
            issuer=request["issuer"],
            audience=request["audience"],
            options={"require": ["iss", "sub", "aud", "iat", "exp", "jti"]},
        )
    except jwt.InvalidTokenError as error:
        return {"refused": type(error).__name__}
    return {"header": jwt.get_unverified_header(request["token"]), "claims": claims}


def accepts(request):
    """Says nothing about a token that it accepts, with the contract's leeway and issuers."""
    try:
        jwt.decode(
            request["token"],
            key_of(request),
            algorithms=["ES256"],
            issuer=request["issuer"],
            audience=request["audience"],
            leeway=30,
            options={"require": ["iss", "sub", "aud", "iat", "exp"]},
        )
    except jwt.InvalidTokenError as error:
        return {"refused": f"{type(error).__name__}: {error}"}
    return {}


def name(request):
    key = key_of(request)
    if isinstance(key, str):
        key = form.load_pem_public_key(key.encode())
    spki = key.public_bytes(form.Encoding.DER, form.PublicFormat.SubjectPublicKeyInfo)
    digest = base64.urlsafe_b64encode(hashlib.sha256(spki).digest())
    return {"fingerprint": digest.rstrip(b"=").decode()}


def generate(_request):
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()
    )
    return {"key": {"pem": pem.decode()}}


OPERATIONS = {f.__name__: f for f in (mint, mint_unsigned, verify, accepts, name, generate)}

if __name__ == "__main__":
    operation = OPERATIONS[sys.argv[1]]
    json.dump([operation(request) for request in json.load(sys.stdin)], sys.stdout)
