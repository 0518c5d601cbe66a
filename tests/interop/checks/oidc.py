"""A real OpenID provider (oauth2-mock-server) whose keys rotate while the proxy runs."""
import base64
import json
import os
import time
import urllib.request

from harness import Skip, check, end, expect, folder, free_port, need, run, start
from mesh import Sidecar, Witness, member, request, send

NODE = need("node")
MODULE = os.path.join(os.environ["SIDEGATE_INTEROP_CACHE"], "node/node_modules/oauth2-mock-server/dist/index.mjs")
if not os.path.exists(MODULE):
    raise Skip("oauth2-mock-server is not installed (npm)")
if int(run(NODE, "--version").lstrip("v").split(".")[0]) < 20:
    raise Skip("oauth2-mock-server needs Node 20 or newer")

ISSUER = "http://issuer.interop"
SCRIPT = os.path.join(os.path.dirname(__file__), "../oidc.mjs")
# A key that is not known is asked for at most every 10 seconds; with what a slow machine takes.
REFETCH = 10 + 5


class Provider:
    """A provider, which is started anew with other keys."""

    def __init__(self):
        self.port, self.process = free_port(), None

    def rotate(self, *kids):
        self.stop()
        command = [NODE, SCRIPT, MODULE, str(self.port), ISSUER, os.path.join(folder(), "oidc-keys.json"), *kids]
        self.process = start("oidc", command, self.port)

    def stop(self):
        if self.process:
            end(self.process)

    def token(self, kid):
        """From the token endpoint, signed by this key; the provider takes its keys in turn."""
        for _ in range(4):
            body = b"grant_type=client_credentials&client_id=interop&scope=read"
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/token", body, timeout=10) as answer:
                token = json.load(answer)["access_token"]
            head = token.split(".")[0]
            if json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"] == kid:
                return token
        raise AssertionError(f"no token by the key {kid}")


@check("keys of an OpenID provider rotate: the new key is taken within the limit of asking, a key that is gone is refused, an outage costs nothing")
def rotation():
    provider, application = Provider(), Witness()
    provider.rotate("first")
    authentication = {"apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication", "metadata": {"name": "users", "namespace": "interop"},
                      "spec": {"jwtRules": [{"issuer": ISSUER, "jwksUri": ISSUER + "/jwks", "outputClaimToHeaders": [{"header": "x-scope", "claim": "scope"}]}]}}
    proxy = Sidecar("oidc-sidegate", application.port, objects=[authentication, member("issuer.interop", provider.port, tls=False)])

    def ask(token):
        return send(proxy.inbound, request(headers=[("Authorization", "Bearer " + token)]))

    def becomes(token, status, limit):
        """The seconds until this is the answer."""
        since = time.time()
        while (answer := ask(token)).status != status:
            if time.time() - since > limit:
                raise AssertionError(f"{answer.status} for {limit} s, not {status}: {answer.body!r}")
            time.sleep(0.2)
        return time.time() - since

    first = provider.token("first")
    becomes(first, 200, 5)
    expect(ask(first).seen["headers"].get("x-scope"), ["read"], "x-scope")
    expect(ask(first[:-8] + "AAAAAAAA").status, 401, "a forged signature")

    provider.rotate("first", "second")
    second = provider.token("second")
    took = becomes(second, 200, REFETCH)
    expect(ask(first).status, 200, "the old key, while it is shown")

    provider.rotate("second", "third")
    third = provider.token("third")
    again = becomes(third, 200, REFETCH)
    expect(ask(first).status, 401, "the first key, which is gone")
    expect(ask(second).status, 200, "the second key")

    provider.stop()
    expect((ask(second).status, ask(third).status, ask(first).status), (200, 200, 401), "while the provider is down")
    print(f"      new keys were taken after {took:.1f} and {again:.1f} s")
