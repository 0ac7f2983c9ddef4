"""Made `foreign_signatures.json`, once, with PyCA cryptography: real signatures of other algorithms.

Every token names the same P-256 key and is good in every other respect at the time NOW of the
catalogue's clock. Private keys were thrown away.
"""

import base64
import json
import sys

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

NOW = 1_800_000_000


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def ecdsa(key, digest, size):
    def sign(message):
        r, s = decode_dss_signature(key.sign(message, ec.ECDSA(digest)))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    return sign


p256 = ec.generate_private_key(ec.SECP256R1())
p384 = ec.generate_private_key(ec.SECP384R1())
k256 = ec.generate_private_key(ec.SECP256K1())
rsa_key = rsa.generate_private_key(65537, 2048)
edwards = ed25519.Ed25519PrivateKey.generate()
pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)

spki = p256.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
digest = hashes.Hash(hashes.SHA256())
digest.update(spki)
kid = b64(digest.finalize())
numbers = p256.public_key().public_numbers()
jwk = {
    "kty": "EC",
    "crv": "P-256",
    "kid": kid,
    "x": b64(numbers.x.to_bytes(32, "big")),
    "y": b64(numbers.y.to_bytes(32, "big")),
    "alg": "ES256",
}

signers = {
    "ES256": ecdsa(p256, hashes.SHA256(), 32),
    "RS256": lambda m: rsa_key.sign(m, padding.PKCS1v15(), hashes.SHA256()),
    "PS256": lambda m: rsa_key.sign(m, pss, hashes.SHA256()),
    "EdDSA": edwards.sign,
    "ES384": ecdsa(p384, hashes.SHA384(), 48),
    "ES256K": ecdsa(k256, hashes.SHA256(), 32),
}


def token(alg, sign):
    header = {"alg": alg, "typ": "JWT", "kid": kid}
    claims = {
        "iss": "vectors",
        "sub": "vectors",
        "aud": ["dpm-dev", "dpe-dev"],
        "iat": NOW,
        "exp": NOW + 300,
    }
    message = b64(json.dumps(header).encode()) + "." + b64(json.dumps(claims).encode())
    return message + "." + b64(sign(message.encode()))


vectors = {
    "jwk": jwk,
    "own_alg": {alg: token(alg, sign) for alg, sign in signers.items()},
    "under_es256": {alg: token("ES256", sign) for alg, sign in signers.items() if alg != "ES256"},
}
json.dump(vectors, sys.stdout, indent=2)
print()
