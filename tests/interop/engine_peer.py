"""An engine in Python, with grpcio and stubs made of the project's own `proto/`.

Run as `engine_peer.py OPERATION` with a JSON array of requests on stdin, where private keys come
in too. Writes the array of answers to stdout.
"""

import base64
import hashlib
import json
import secrets
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import grpc
import jwt
from google.protobuf.json_format import MessageToDict
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status
from grpc_tools import protoc

import token_peer

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 20
# The DPM is on this machine, whatever `http_proxy` says.
NO_PROXY = (("grpc.enable_http_proxy", 0),)


def compile_stubs(out):
    """Compiles `proto/` into the folder `out`, where Python finds it from then on."""
    files = sorted(str(file) for file in (ROOT / "proto").rglob("*.proto"))
    google = Path(protoc.__file__).parent / "_proto"
    includes = [f"--proto_path={ROOT / 'proto'}", f"--proto_path={google}"]
    if protoc.main(["protoc", *includes, f"--python_out={out}", f"--grpc_python_out={out}", *files]):
        sys.exit("the project's protos do not compile")
    sys.path.insert(0, out)


def base64url(value):
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def bearer(token):
    return (("authorization", f"Bearer {token}"),)


def altered(token):
    """The same token with another issuer and the old signature."""
    header, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    claims["iss"] = claims["sub"] = "root"
    return ".".join((header, base64url(json.dumps(claims).encode()), signature))


def refusal(method, message, metadata):
    """What a call is refused with."""
    try:
        method(message, metadata=metadata, timeout=TIMEOUT_SECONDS)
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
        info = ErrorInfo()
        assert [detail.Unpack(info) for detail in status.details] == [True]
        return [error.code().name, info.domain, info.reason]
    return None


def proof_of(call, token, request):
    """What the callee's proof says, verified with its public key."""
    metadata = dict(call.initial_metadata())
    claims = jwt.decode(
        metadata["countersign-proof"],
        request["dpm_key"],
        algorithms=["ES256"],
        issuer="dpm-dev",
        audience=f"countersign-proof:{request['issuer']}",
    )
    header = jwt.get_unverified_header(metadata["countersign-proof"])
    return {
        "header": header,
        "covers_token": claims["th"] == base64url(hashlib.sha256(token.encode()).digest()),
        "method": claims["m"],
        "nonce": claims["nonce"],
        "lives_for": claims["exp"] - claims["iat"],
    }


def register(request):
    """Registers an engine and looks at what the DPM says of it."""
    identity = import_module("countersign.identity.v1.identity_pb2")
    registry = import_module("countersign.registry.v1.registry_pb2")
    identity_grpc = import_module("countersign.identity.v1.identity_pb2_grpc")
    registry_grpc = import_module("countersign.registry.v1.registry_pb2_grpc")
    token = token_peer.mint(request)["token"]
    nonce = base64url(secrets.token_bytes(16))
    with grpc.insecure_channel(request["dpm"], NO_PROXY) as channel:
        who_am_i = identity_grpc.IdentityServiceStub(channel).WhoAmI
        engines = registry_grpc.EngineRegistryServiceStub(channel)
        engine = registry.RegisterEngineRequest(
            engine_id=request["engine_id"],
            address=registry.EngineAddress(hostname="127.0.0.1", port=request["port"]),
            constraints=registry.EngineConstraints(capabilities={"python": "3"}),
        )

        registered = engines.RegisterEngine(engine, metadata=bearer(token), timeout=TIMEOUT_SECONDS)
        asking = bearer(token) + (("countersign-nonce", nonce),)
        seen, call = who_am_i.with_call(
            identity.WhoAmIRequest(), metadata=asking, timeout=TIMEOUT_SECONDS
        )
        listed = engines.ListEngines(
            registry.ListEnginesRequest(), metadata=bearer(token), timeout=TIMEOUT_SECONDS
        )
        credentials = {
            "none": (),
            "altered": bearer(altered(token)),
            "unpaired": bearer(token_peer.mint(request["stranger"])["token"]),
        }
        calls = [
            (who_am_i, identity.WhoAmIRequest()),
            (engines.RegisterEngine, engine),
            (engines.ListEngines, registry.ListEnginesRequest()),
        ]
        refused = {
            name: [refusal(method, message, metadata) for method, message in calls]
            for name, metadata in credentials.items()
        }
    return {
        "registered": MessageToDict(registered.engine),
        "seen": MessageToDict(seen),
        "token_expires_at": jwt.decode(token, options={"verify_signature": False})["exp"],
        "reported_expiry": seen.token_expires_at.seconds,
        "nonce": nonce,
        "proof": proof_of(call, token, request),
        "listed": [engine.id for engine in listed.engines],
        "refused": refused,
    }


OPERATIONS = {"register": register}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as stubs_folder:
        compile_stubs(stubs_folder)
        operation = OPERATIONS[sys.argv[1]]
        json.dump([operation(request) for request in json.load(sys.stdin)], sys.stdout)
