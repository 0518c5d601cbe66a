"""The same RequestAuthentication with inline keys, given to Envoy's jwt_authn as istiod would and to Sidegate: good and bad tokens are judged alike."""
import base64
import hashlib
import hmac
import json
import time

from harness import check, expect
from mesh import Client, Sidecar, Witness, envoy, http_filter, need_envoy, need_module, request

need_envoy()
need_module("cryptography")

from cryptography.hazmat.primitives import hashes      # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils      # noqa: E402

HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
KEYS = {
    "rsa": rsa.generate_private_key(65537, 2048), "rsa-2": rsa.generate_private_key(65537, 2048),
    "p256": ec.generate_private_key(ec.SECP256R1()), "p384": ec.generate_private_key(ec.SECP384R1()), "ed": ed25519.Ed25519PrivateKey.generate(),
    "stranger": rsa.generate_private_key(65537, 2048), "stranger-p256": ec.generate_private_key(ec.SECP256R1())}
SECRET = b"a secret of thirty-two bytes, or more"
NOW = int(time.time())


def b64(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def number(value):
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def jwk(name, **more):
    public = KEYS[name].public_key()
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        return {"kty": "RSA", "kid": name, "n": number(numbers.n), "e": number(numbers.e), **more}
    if isinstance(public, ed25519.Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "kid": name, "x": b64(public.public_bytes_raw()), **more}
    numbers, size = public.public_numbers(), public.curve.key_size // 8
    return {"kty": "EC", "crv": f"P-{public.curve.key_size}", "kid": name,
            "x": b64(numbers.x.to_bytes(size, "big")), "y": b64(numbers.y.to_bytes(size, "big")), **more}


def signature(algorithm, key, text):
    """As RFC 7518 says; the tests need also what no library would sign."""
    if algorithm == "none":
        return b""
    digest = HASHES.get(algorithm[-3:])
    if algorithm.startswith("HS"):
        return hmac.new(key, text, hashlib.sha256).digest()
    key = KEYS[key]
    if algorithm.startswith("RS"):
        return key.sign(text, padding.PKCS1v15(), digest)
    if algorithm.startswith("PS"):
        return key.sign(text, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    if algorithm.startswith("ES"):
        r, s = utils.decode_dss_signature(key.sign(text, ec.ECDSA(digest)))
        size = key.curve.key_size // 8
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    return key.sign(text)


def token(algorithm="RS256", key="rsa", claims=None, head=None, drop=(), raw=None, **changed):
    """A token of the issuer `one`, good unless something is changed; None takes a claim out."""
    head = {"alg": algorithm, "typ": "JWT", **({"kid": key} if isinstance(key, str) else {}), **(head or {})}
    claims = claims or {"iss": "https://one", "sub": "alice", "aud": "shop", "iat": NOW, "exp": NOW + 600}
    claims = {name: value for name, value in {**claims, **changed}.items() if value is not None}
    head = {name: value for name, value in head.items() if name not in drop}
    text = f"{b64(json.dumps(head).encode())}.{b64(raw.encode() if raw else json.dumps(claims).encode())}"
    return f"{text}.{b64(signature(algorithm, key, text.encode()))}"


def tampered(good, part):
    """One bit of one part is turned."""
    parts = good.split(".")
    raw = bytearray(base64.urlsafe_b64decode(parts[part] + "=="))
    raw[len(raw) // 2] ^= 1
    parts[part] = b64(bytes(raw))
    return ".".join(parts)


RULES = [
    {"issuer": "https://one", "audiences": ["shop", "store"], "forwardOriginalToken": True,
     "jwks": json.dumps({"keys": [jwk("rsa", alg="RS256"), jwk("rsa-2"), jwk("p256"), jwk("p384"), jwk("ed")]})},
    {"issuer": "https://two", "forwardOriginalToken": True, "fromHeaders": [{"name": "x-token", "prefix": "Tok "}], "fromParams": ["access"],
     "jwks": json.dumps({"keys": [jwk("rsa-2", use="sig")]})},
]


def translate():
    """RequestAuthentication as istiod writes it: any of the issuers, or no token at all."""
    providers = {}
    for index, each in enumerate(RULES):
        provider = {"issuer": each["issuer"], "forward": True, "local_jwks": {"inline_string": each["jwks"]}, "payload_in_metadata": "payload"}
        if "audiences" in each:
            provider["audiences"] = each["audiences"]
        if "fromHeaders" in each:
            provider["from_headers"] = [{"name": header["name"], "value_prefix": header["prefix"]} for header in each["fromHeaders"]]
        if "fromParams" in each:
            provider["from_params"] = each["fromParams"]
        providers[f"origins-{index}"] = provider
    requirements = [{"provider_name": name} for name in providers] + [{"allow_missing": {}}]
    return http_filter("jwt_authn", "JwtAuthentication", providers=providers,
                       rules=[{"match": {"prefix": "/"}, "requires": {"requires_any": {"requirements": requirements}}}])


def bearer(text):
    return [("Authorization", "Bearer " + text)]


def grid():
    """Name -> (headers, target)."""
    good = token()
    second = {"iss": "https://two", "sub": "bob", "exp": NOW + 600}
    other = token(key="rsa-2", claims=second)
    public = KEYS["rsa"].public_key().public_numbers()
    parts = good.split(".")
    tokens = {
        "good": good,
        "RS256 of the second key": token(key="rsa-2"), "RS384": token("RS384", "rsa-2"), "RS512": token("RS512", "rsa-2"),
        "PS256": token("PS256", "rsa-2"), "PS384": token("PS384", "rsa-2"), "PS512": token("PS512", "rsa-2"),
        "ES256": token("ES256", "p256"), "ES384": token("ES384", "p384"), "EdDSA": token("EdDSA", "ed"),
        "RS512 by a key for RS256": token("RS512", "rsa"), "PS256 by a key for RS256": token("PS256", "rsa"),
        "none": token("none"), "None": token("none", head={"alg": "None"}), "none with a signature": token(head={"alg": "none"}),
        "HS256 with a secret": token("HS256", SECRET), "HS256 with the public key": token("HS256", number(public.n).encode(), head={"kid": "rsa"}),
        "says ES256, is RS256": token(head={"alg": "ES256"}), "says RS256, is ES256": token("ES256", "p256", head={"alg": "RS256"}),
        "ES256 says ES384": token("ES256", "p256", head={"alg": "ES384"}), "unknown algorithm": token(head={"alg": "XX256"}),
        "no algorithm": token(drop=["alg"]), "algorithm is a number": token(head={"alg": 256}),
        "no kid": token(drop=["kid"]), "unknown kid": token(head={"kid": "nobody"}), "kid of another key": token(head={"kid": "rsa-2"}),
        "kid is a number": token(head={"kid": 1}), "empty kid": token(head={"kid": ""}), "no typ": token(drop=["typ"]), "typ at+jwt": token(head={"typ": "at+jwt"}),
        "stranger's key": token(key="stranger", head={"kid": "rsa"}), "stranger's P-256": token("ES256", "stranger-p256", head={"kid": "p256"}),
        "stranger without kid": token(key="stranger", drop=["kid"]), "stranger's key in the head": token(key="stranger", head={"jwk": jwk("stranger")}),
        "crit": token(head={"crit": ["exp"]}), "crit unknown": token(head={"crit": ["x"], "x": 1}), "zip": token(head={"zip": "DEF"}),
        "b64 false": token(head={"b64": False, "crit": ["b64"]}),
        "expired long ago": token(exp=NOW - 3600), "expired within the leeway": token(exp=NOW - 20), "expired beyond the leeway": token(exp=NOW - 150),
        "no exp": token(exp=None), "exp is a text": token(exp=str(NOW + 600)), "exp with a fraction": token(exp=NOW + 600.5), "exp 0": token(exp=0),
        "exp negative": token(exp=-1), "exp far away": token(exp=NOW + 10**9), "exp null": token(raw='{"iss":"https://one","aud":"shop","exp":null}'),
        "nbf later": token(nbf=NOW + 600), "nbf within the leeway": token(nbf=NOW + 20), "nbf past": token(nbf=NOW - 20), "nbf is a text": token(nbf="1"),
        "iat later": token(iat=NOW + 600), "no iat": token(iat=None), "iat is a text": token(iat="1"),
        "aud of the list": token(aud="store"), "aud wrong": token(aud="bank"), "no aud": token(aud=None), "aud list": token(aud=["bank", "shop"]),
        "aud list wrong": token(aud=["bank", "post"]), "aud empty list": token(aud=[]), "aud a number": token(aud=7), "aud list with a number": token(aud=["shop", 7]),
        "aud with a slash": token(aud="shop/"), "aud as address": token(aud="https://shop"), "aud upper-case": token(aud="SHOP"),
        "iss wrong": token(iss="https://three"), "iss upper-case": token(iss="HTTPS://ONE"), "iss with a slash": token(iss="https://one/"), "no iss": token(iss=None),
        "iss a list": token(iss=["https://one"]), "iss of the other rule": token(iss="https://two"), "no sub": token(sub=None), "sub a number": token(sub=7),
        "tampered head": tampered(good, 0), "tampered claims": tampered(good, 1), "tampered signature": tampered(good, 2),
        "no signature": f"{parts[0]}.{parts[1]}.", "two parts": f"{parts[0]}.{parts[1]}", "four parts": good + ".x", "five parts": good + ".x.y",
        "empty parts": "..", "dot": ".", "a word": "token", "no base64": f"{parts[0]}.!!!.{parts[2]}", "padded": f"{parts[0]}=.{parts[1]}==.{parts[2]}=",
        "line break encoded": good + "%0A", "claims no JSON": token(raw="hello"), "claims a list": token(raw="[]"), "claims twice": token(
            raw=json.dumps({"iss": "https://one", "aud": "shop", "exp": NOW + 600})[:-1] + ', "aud": "bank"}'),
        "iss twice": token(raw=f'{{"iss":"https://three","iss":"https://one","aud":"shop","exp":{NOW + 600}}}'),
        "exp twice": token(raw=f'{{"iss":"https://one","aud":"shop","exp":1,"exp":{NOW + 600}}}'), "claims in UTF-8": token(name="Zoë \U0001f600"),
        "long": token(filler="x" * 4000), "deep": token(raw='{"iss":"https://one","aud":"shop","exp":%d,"d":%s}' % (NOW + 600, "[" * 60 + "]" * 60)),
    }
    cases = {name: (bearer(text), "/") for name, text in tokens.items()}
    cases.update({
        "no token": ([], "/"), "basic": ([("Authorization", "Basic YTpi")], "/"), "empty": ([("Authorization", "")], "/"), "bearer alone": ([("Authorization", "Bearer")], "/"),
        "bearer and a space": ([("Authorization", "Bearer ")], "/"), "lower-case bearer": ([("Authorization", "bearer " + good)], "/"),
        "upper-case BEARER": ([("Authorization", "BEARER " + good)], "/"), "two spaces": ([("Authorization", "Bearer  " + good)], "/"),
        "bare token": ([("Authorization", good)], "/"), "token then words": ([("Authorization", f"Bearer {good} x")], "/"), "token then comma": ([("Authorization", f"Bearer {good},x")], "/"),
        "lower-case header": ([("authorization", "Bearer " + good)], "/"), "good twice": (bearer(good) + bearer(good), "/"), "good, then bad": (bearer(good) + bearer(tokens["none"]), "/"),
        "bad, then good": (bearer(tokens["none"]) + bearer(good), "/"), "two headers": ([("X-Token", "Tok " + other)], "/"),
        "header without its prefix": ([("X-Token", other)], "/"), "header with a stranger": ([("X-Token", "Tok " + token(key="rsa", claims=second))], "/"),
        "header of the other issuer": ([("X-Token", "Tok " + good)], "/"), "two in the default place": (bearer(other), "/"),
        "parameter": ([], "/?access=" + other), "parameter among others": ([], f"/?a=b&access={other}&c=d"), "parameter bad": ([], "/?access=" + tampered(other, 2)),
        "parameter of the other issuer": ([], "/?access=" + good), "parameter twice, good first": ([], f"/?access={other}&access=x"), "parameter twice, bad first": ([], f"/?access=x&access={other}"),
        "parameter in upper case": ([], "/?ACCESS=" + other), "default parameter": ([], "/?access_token=" + good), "default parameter bad": ([], "/?access_token=" + tokens["none"]),
        "both good": (bearer(good) + [("X-Token", "Tok " + other)], "/"), "first good, second bad": (bearer(good) + [("X-Token", "Tok x")], "/"),
        "first bad, second good": (bearer(tokens["none"]) + [("X-Token", "Tok " + other)], "/"), "header good, parameter bad": (bearer(good), "/?access=x"),
    })
    return cases


# Where Sidegate differs on purpose: names of cases -> reason. In all of them it refuses, and Envoy lets pass.
INTENDED = {
    "says RS256, is ES256": "the head names another algorithm than the signature has; Envoy goes by the key alone (RFC 8725 3.1)",
    "empty kid": "a key that is named and not there is not replaced by any that fits",
    "crit": "RFC 7515 4.1.11: an extension that is not understood, or a registered name, is refused",
    "crit unknown": "the same", "b64 false": "the same; the payload would mean something else (RFC 7797)",
    "exp 0": "an expiry in 1970 is one; Envoy reads it as none", "iat later": "issued in the future, beyond the leeway",
    "deep": "JSON of 60 levels is no set of claims", "bearer alone": "whoever sends the scheme means to send a token; Envoy reads it as none",
    "bearer and a space": "the same", "parameter twice, good first": "of two tokens in one place the application may read the other",
}


@check("Envoy's jwt_authn and Sidegate judge each of some 130 tokens alike")
def alike():
    application = Witness()
    theirs = Client(envoy("tokens-envoy", application.port, filters=[translate()]))
    authentication = {"apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication", "metadata": {"name": "tokens", "namespace": "interop"},
                      "spec": {"jwtRules": RULES}}
    ours = Client(Sidecar("tokens-sidegate", application.port, objects=[authentication]).inbound)
    differences, intended, counts = [], 0, {200: 0, 401: 0, 403: 0}
    for name, (headers, target) in grid().items():
        text = request(target=target, headers=headers)
        their, our = theirs.send(text), ours.send(text)
        if name in INTENDED and (their.status, our.status) == (200, 401):
            intended += 1
            print(f"      {name}: refused by Sidegate alone: {INTENDED[name]}")
        elif their.status != our.status or our.status not in counts:
            differences.append(f"{name}: Envoy {their.status} {their.body[:80] if their.status != 200 else ''}, Sidegate {our.status} {our.body[:120] if our.status != 200 else ''}")
        else:
            counts[our.status] += 1
    print(f"      {counts[200]} taken, {counts[401]} refused (401) and {counts[403]} of another audience (403) by both")
    if differences:
        raise AssertionError(f"{len(differences)} differences\n        " + "\n        ".join(differences))
    expect(counts[200] >= 30 and counts[401] >= 60, True, f"enough of both in {counts}")
    expect(intended, len(INTENDED), "differences that are listed and were seen")
