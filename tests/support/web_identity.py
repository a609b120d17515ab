"""An OpenID Connect issuer, and a role on SeaweedFS for whom it vouches."""

import base64
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

__all__ = ["ROLE_ARN", "Issuer", "issuer"]

ROLE_ARN = "arn:aws:iam::role/Recorder"
_AUDIENCE = "roomtape"
_PROVIDER = "tests"


@dataclass(frozen=True, slots=True)
class Issuer:
    """A running issuer."""

    url: str
    key: rsa.RSAPrivateKey

    def token(self, *, audience: str = _AUDIENCE, lifetime_seconds: int = 600) -> str:
        """A signed token for the recorder."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": "recorder",
            "aud": audience,
            "iat": now,
            "exp": now + lifetime_seconds,
        }
        head = {"alg": "RS256", "kid": "k1", "typ": "JWT"}
        text = f"{_base64(json.dumps(head).encode())}.{_base64(json.dumps(claims).encode())}"
        return f"{text}.{_base64(self.key.sign(text.encode(), padding.PKCS1v15(), SHA256()))}"

    def access(self) -> Mapping[str, object]:
        """What `weed_server` must know to let holders of tokens take `ROLE_ARN`."""
        trust = {
            "Effect": "Allow",
            "Principal": {"Federated": _PROVIDER},
            "Action": ["sts:AssumeRoleWithWebIdentity"],
        }
        return {
            "sts": {
                "tokenDuration": "1h",
                "maxSessionLength": "12h",
                "issuer": "seaweedfs",
                "signingKey": base64.b64encode(bytes(range(32))).decode(),
            },
            "providers": [
                {
                    "name": _PROVIDER,
                    "type": "oidc",
                    "enabled": True,
                    "config": {"issuer": self.url, "clientId": _AUDIENCE, "jwksUri": f"{self.url}/keys"},
                }
            ],
            "policy": {"defaultEffect": "Deny", "storeType": "memory"},
            "policies": [
                {
                    "name": "recorder",
                    "document": {
                        "Version": "2012-10-17",
                        "Statement": [{"Effect": "Allow", "Action": ["s3:*"], "Resource": ["*"]}],
                    },
                }
            ],
            "roles": [
                {
                    "roleName": "Recorder",
                    "roleArn": ROLE_ARN,
                    "trustPolicy": {"Version": "2012-10-17", "Statement": [trust]},
                    "attachedPolicies": ["recorder"],
                }
            ],
        }


@contextmanager
def issuer() -> Iterator[Issuer]:
    """Serves its keys while the block runs."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    numbers = key.public_key().public_numbers()
    jwk = {
        "kty": "RSA",
        "kid": "k1",
        "use": "sig",
        "alg": "RS256",
        "n": _base64(numbers.n.to_bytes(256, "big")),
        "e": _base64(numbers.e.to_bytes(3, "big")),
    }
    body = json.dumps({"keys": [jwk]}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Issuer(f"http://127.0.0.1:{server.server_port}", key)
        finally:
            server.shutdown()
            thread.join()


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
