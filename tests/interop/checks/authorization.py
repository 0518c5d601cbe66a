"""The same AuthorizationPolicy objects, given to Envoy's RBAC filter as istiod would and to Sidegate, decide alike request by request."""
import json
import re

from harness import check, expect
from mesh import Authority, Client, Sidecar, Witness, downstream, envoy, http_filter, need_envoy, request, strict

need_envoy()


def policy(name, action, *rules):
    return {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": name, "namespace": "interop"},
            "spec": {"action": action, "rules": list(rules)}}


def rule(source=None, operation=None, when=()):
    found = {}
    if source:
        found["from"] = [{"source": each} for each in ([source] if isinstance(source, dict) else source)]
    if operation:
        found["to"] = [{"operation": each} for each in ([operation] if isinstance(operation, dict) else operation)]
    if when:
        found["when"] = list(when)
    return found


POLICIES = [
    policy("admin-off-limits", "DENY", rule({"notNamespaces": ["ops"]}, {"paths": ["/admin", "/admin/*"]})),
    policy("no-internal", "DENY", rule(operation={"paths": ["*.internal"], "notMethods": ["GET"]}),
           rule(operation={"hosts": ["blocked.interop", "*.blocked.interop"]})),
    policy("no-debug", "DENY", rule(operation={"paths": ["/api/*"]}, when=[{"key": "request.headers[x-debug]", "values": ["*"]}]),
           rule(when=[{"key": "request.headers[x-env]", "values": ["test-*", "*-dev"]}])),
    policy("no-key", "DENY", rule(operation={"paths": ["/keyed"]}, when=[{"key": "request.headers[x-key]", "notValues": ["open sesame"]}])),
    policy("shop", "ALLOW",
           rule({"principals": ["cluster.local/ns/interop/sa/web"]}, {"methods": ["GET", "HEAD"], "paths": ["/api/*"]}),
           rule({"principals": ["cluster.local/ns/interop/sa/orders"]}, {"methods": ["POST"], "paths": ["/api/payments/process"]}),
           rule({"namespaces": ["ops"]}, {"notPaths": ["/secret", "/secret/*"]}),
           rule({"principals": ["*/sa/auditor"], "notNamespaces": ["ops"]}, {"paths": ["/reports/{*}/daily", "/logs/{**}"]}),
           rule({"principals": ["cluster.local/ns/inter*"], "notPrincipals": ["cluster.local/ns/interop/sa/web"]},
                {"paths": ["/shared", "/Shared", "/a b", "/x;y"]}),
           rule(operation={"paths": ["/public", "/public/*", "*.css", "/keyed"]}),
           # What the DENY rules above are to take away again.
           rule(operation={"paths": ["/adm*", "/ADMIN", "*.internal"]}),
           rule({"principals": ["*"]}, {"paths": ["/anyone"]}),
           rule({"serviceAccounts": ["interop/orders", "auditor"]}, {"paths": ["/accounts"]}),
           rule({"ipBlocks": ["127.0.0.0/8"], "notIpBlocks": ["127.0.0.1"]}, {"paths": ["/nowhere"]}),
           rule({"ipBlocks": ["127.0.0.1"]}, {"paths": ["/near"], "notMethods": ["DELETE"]}),
           rule(operation={"paths": ["/hosted"], "hosts": ["server.interop", "*.example.org"], "notHosts": ["bad.example.org"]}),
           rule(operation={"paths": ["/when"]}, when=[{"key": "request.headers[x-tier]", "values": ["gold", "pl*", "*um"]},
                                                      {"key": "source.namespace", "values": ["interop"]}]),
           rule(operation={"paths": ["/who"]}, when=[{"key": "source.principal", "notValues": ["cluster.local/ns/interop/sa/web"]}])),
]

ACCOUNTS = {"web": "interop", "orders": "interop", "auditor": "interop", "keeper": "ops"}

# Where Sidegate differs on purpose: (reason, whether it is about this request, what Sidegate then says).
INTENDED = [
    ("a header that comes twice allows only where each of its values would; for Envoy one of them is enough, whichever the application takes",
     lambda each: len([name for name, _ in each["headers"]]) > 1, "refused"),
    ("a host is judged without its port and final dot, as it is routed: another spelling is no way round a rule (CVE-2021-39155); Envoy compares the header as it came",
     lambda each: re.search(r":\d+$|\.$", each["host"]), None),
    ("a fragment is cut off before anything is decided, and is not forwarded; Envoy answers 400",
     lambda each: "#" in each["target"], "allowed"),
]

NORMALIZE = {
    "BASE": {"normalize_path": True},
    "MERGE_SLASHES": {"normalize_path": True, "merge_slashes": True},
    "DECODE_AND_MERGE_SLASHES": {"normalize_path": True, "merge_slashes": True, "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD"},
}


# ---------------------------------------------------------------- as istiod translates (security/authz/model)
def string(value, prefix=""):
    """A StringMatcher for exact, `prefix*`, `*suffix` and `*`."""
    if value == "*":
        return {"safe_regex": {"regex": ".+"}}
    if value.startswith("*"):
        return {"safe_regex": {"regex": re.escape(prefix) + ".*" + re.escape(value[1:])}} if prefix else {"suffix": value[1:]}
    return {"prefix": prefix + value[:-1]} if value.endswith("*") else {"exact": prefix + value}


def authenticated(matcher):
    return {"authenticated": {"principal_name": matcher}}


def path(value):
    if "{*}" in value or "{**}" in value:
        template = {"@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
                    "path_template": value.replace("{*}", "*").replace("{**}", "**")}
        return {"uri_template": {"name": "uri-template", "typed_config": template}}
    return {"url_path": {"path": string(value)}}


def account(value):
    namespace, _, name = value.rpartition("/")
    return authenticated({"safe_regex": {"regex": f".*/ns/{namespace or 'interop'}/sa/{name}/?.*"}})


def header(name, value, ignore_case=False):
    if value == "*":
        return {"header": {"name": name, "present_match": True}}
    return {"header": {"name": name, "string_match": {**string(value), "ignore_case": ignore_case}}}


def address(value):
    start, _, length = value.partition("/")
    return {"direct_remote_ip": {"address_prefix": start, "prefix_len": int(length or 32)}}


SOURCES = {
    "principals": lambda value: authenticated(string(value, "spiffe://")),
    "namespaces": lambda value: authenticated({"safe_regex": {"regex": f".*/ns/{value}/.*"}}),
    "serviceAccounts": account,
    "ipBlocks": address,
}
OPERATIONS = {
    "methods": lambda value: header(":method", value),
    "paths": path,
    "hosts": lambda value: header(":authority", value, True),
}
KEYS = {"source.principal": SOURCES["principals"], "source.namespace": SOURCES["namespaces"]}


def clauses(written, known, ids, any_of, not_of):
    """All fields of one source or operation hold; each field by any of its values."""
    found = []
    for field, values in written.items():
        negated = field.startswith("not")
        name = field[3].lower() + field[4:] if negated else field
        either = {any_of: {ids: [known[name](value) for value in values]}}
        found.append({not_of: either} if negated else either)
    return found


def conditions(when):
    found = []
    for each in when:
        name = re.fullmatch(r"request\.headers\[(.+)\]", each["key"])
        make = (lambda value, name=name: header(name[1], value)) if name else KEYS[each["key"]]
        for field, wrap in (("values", lambda either: either), ("notValues", lambda either: {"not_id": either})):
            if field in each:
                found.append(wrap({"or_ids": {"ids": [make(value) for value in each[field]]}}))
    return found


def translate(policies, action):
    compiled = {}
    for each in policies:
        if each["spec"]["action"] != action:
            continue
        for index, one in enumerate(each["spec"]["rules"]):
            who = [{"and_ids": {"ids": clauses(entry["source"], SOURCES, "ids", "or_ids", "not_id") + conditions(one.get("when", ()))}}
                   for entry in one.get("from", [{"source": {}}])]
            what = [{"and_rules": {"rules": clauses(entry["operation"], OPERATIONS, "rules", "or_rules", "not_rule") or [{"any": True}]}}
                    for entry in one.get("to", [{"operation": {}}])]
            for part in who:
                part["and_ids"]["ids"] = part["and_ids"]["ids"] or [{"any": True}]
            compiled[f"{each['metadata']['name']}-{index}"] = {"principals": who, "permissions": what}
    return http_filter("rbac", "RBAC", rules={"action": action, "policies": compiled})


# ---------------------------------------------------------------- the requests
PATHS = [
    "/", "/public", "/public/", "/public/a", "/publication", "/PUBLIC", "/public?q=/admin", "/site.css", "/site.css?v=1", "/site.CSS",
    "/api/items", "/api", "/api/", "/api/payments/process", "/api/payments/process/", "/api/payments/process?x=1", "/api/../secret",
    "/admin", "/admin/", "/admin/users", "/administrator", "/public/../admin", "/public/..%2fadmin", "/public/%2e%2e/admin", "/./admin", "//admin",
    "/public//../admin", "/%61dmin", "/admin%2fusers", "/admin%5cusers", "/public/..\\admin", "/ADMIN", "/admin;x=1", "/admin%00", "/admin%20",
    "/admin?x", "/public/%2E%2E/admin/", "/api//items", "/api/%2e%2e/admin", "/public/%252e%252e/admin",
    "/secret", "/secret/a", "/secrets", "/%73ecret", "/anything", "/a.internal", "/a.internal?b", "/shared", "/Shared", "/shared/", "/a%20b", "/x;y", "/x%3By",
    "/reports/2026/daily", "/reports/2026/11/daily", "/reports//daily", "/reports/daily", "/logs/a", "/logs/a/b/c", "/logs/", "/logs", "/reports/a%2fb/daily",
    "/anyone", "/accounts", "/near", "/nowhere", "/hosted", "/when", "/who", "/keyed", "/public/\u00e9", "/public/%C3%A9", "/api/a%20b", "/public/%", "/public/%zz",
    "/public/a#b", "/public/.", "/public/..", "/..", "/../public", "/api/%2f", "/api/\\..\\..\\admin",
]


def grid():
    """Each path by each account; methods, hosts and headers where some rule reads them."""
    found = []

    def add(account, method, target, headers=(), host="server.interop"):
        found.append({"account": account, "method": method, "target": target, "headers": list(headers), "host": host})

    for target in PATHS:
        for account in ACCOUNTS:
            add(account, "GET", target)
    for account in ACCOUNTS:
        for method in ("POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"):
            for target in ("/api/items", "/api/payments/process", "/a.internal", "/near", "/public/a"):
                add(account, method, target)
        for value in ("1", "0", "", "true"):
            add(account, "GET", "/api/items", [("x-debug", value)])
            add(account, "GET", "/public", [("X-DEBUG", value)])
        for value in ("test-1", "test", "a-dev", "dev", "TEST-1", "prod", " test-1 "):
            add(account, "GET", "/public", [("X-Env", value)])
        for value in ("open sesame", "Open sesame", "", "other"):
            add(account, "GET", "/keyed", [("x-key", value)])
        for value in ("gold", "Gold", "platinum", "premium", "silver", "pl", "um", ""):
            add(account, "GET", "/when", [("x-tier", value)])
        add(account, "GET", "/when", [("x-tier", "silver"), ("x-tier", "gold")])
        add(account, "GET", "/public", [("x-env", "prod"), ("x-env", "test-1")])
        for host in ("server.interop", "SERVER.interop", "a.example.org", "bad.example.org", "BAD.example.org", "example.org", "blocked.interop", "a.blocked.interop",
                     "blocked.interop:80", "server.interop:8080", "server.interop."):
            add(account, "GET", "/hosted", host=host)
    return found


def verdict(answer):
    """Allowed with the target that the application saw, or refused; by whom and with which status is no matter of policy."""
    if answer.status == 200:
        return ("allowed", answer.seen["target"] if answer.body else None)
    if answer.status in (0, 400, 403, 404):
        return ("refused", None)
    raise AssertionError(f"status {answer.status}: {answer.body[:200]!r}")


def compare(mode):
    name = "authorization-" + mode.lower().replace("_", "-")
    mesh, application = Authority(name), Witness()
    held = {account: mesh.issue(account, namespace) for account, namespace in ACCOUNTS.items()}
    server = mesh.issue("server")
    manager = {"server_header_transformation": "PASS_THROUGH", "strip_any_host_port": False, **NORMALIZE[mode]}
    theirs = envoy(name + "-envoy", application.port, server_tls=downstream(server), manager=manager,
                   filters=[translate(POLICIES, "DENY"), translate(POLICIES, "ALLOW")])
    ours = Sidecar(name + "-sidegate", application.port, server, [strict(), *POLICIES], mesh={"pathNormalization": {"normalization": mode}}).inbound
    theirs, ours = ({account: Client(port, held[account]) for account in ACCOUNTS} for port in (theirs, ours))
    differences, intended, counts = [], {}, {"allowed": 0, "refused": 0}
    for each in grid():
        text = request(each["method"], each["target"], each["headers"], each["host"])
        their, our = theirs[each["account"]].send(text), ours[each["account"]].send(text)
        if verdict(their) == verdict(our):
            counts[verdict(our)[0]] += 1
            continue
        wanted = (reason for reason, applies, verdict_of_ours in INTENDED if applies(each) and verdict_of_ours in (None, verdict(our)[0]))
        if reason := next(wanted, None):
            intended[reason] = intended.get(reason, 0) + 1
        else:
            differences.append(f"{each['account']} {each['method']} {each['target']} {each['headers']} {each['host']}: "
                               f"Envoy {their.status} {verdict(their)[1]}, Sidegate {our.status} {verdict(our)[1]} {our.body[:160]!r}")
    for reason, count in intended.items():
        print(f"      {mode}: {count} decided otherwise on purpose: {reason}")
    print(f"      {mode}: {counts['allowed']} allowed and {counts['refused']} refused by both")
    if differences:
        raise AssertionError(f"{len(differences)} differences\n        " + "\n        ".join(differences))
    expect(counts["allowed"] >= 60 and counts["refused"] >= 200, True, f"enough of both in {json.dumps(counts)}")


@check("pathNormalization BASE: Envoy's RBAC filter and Sidegate agree on each of some 600 requests")
def base():
    compare("BASE")


@check("pathNormalization MERGE_SLASHES: they agree")
def merge():
    compare("MERGE_SLASHES")


@check("pathNormalization DECODE_AND_MERGE_SLASHES: they agree")
def decode():
    compare("DECODE_AND_MERGE_SLASHES")
