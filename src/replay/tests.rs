use super::{Difference, Kind, parse, replay};
use crate::config::decode::{Strictness, decode};
use crate::config::resources::Resource;
use std::path::Path;
use std::sync::Arc;

fn resources(yaml: &str) -> Vec<Arc<Resource>> {
    let reading = decode(&Path::new("a.yaml").into(), yaml, Strictness::default());
    let mut found: Vec<_> = reading.objects.into_iter().filter_map(|object| object.resource).collect();
    found.sort_by(|one, other| one.key.cmp(&other.key));
    found
}

const CART: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\n\
    spec: {selector: {app: cart}, ports: [{port: 80, targetPort: 8080}]}\n";

fn policy(spec: &str) -> String {
    format!(
        "{CART}---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    )
}

/// What changes from one policy to the other for a log of these lines.
fn changes(old: &str, new: &str, log: &[String]) -> Difference {
    let (old, new) = (resources(&policy(old)), resources(&policy(new)));
    replay(&old, &new, &mut log.join("\n").as_bytes(), None).unwrap()
}

fn json(method: &str, path: &str, principal: Option<&str>) -> String {
    let peer =
        principal.map_or("null".to_owned(), |name| format!("\"spiffe://cluster.local/ns/shop/sa/{name}\""));
    format!(
        "{{\"start_time\":\"2026-01-02T03:04:05.678Z\",\"method\":\"{method}\",\"path\":\"{path}\",\"response_code\":200,\
         \"authority\":\"cart.shop\",\"upstream_cluster\":\"inbound|8080||\",\"downstream_local_address\":\"10.0.0.9:8080\",\
         \"downstream_remote_address\":\"10.0.0.7:40000\",\"requested_server_name\":\"outbound_.80_._.cart.shop.svc.cluster.local\",\
         \"downstream_peer_uri_san\":{peer}}}"
    )
}

#[test]
fn both_formats_of_a_line_say_the_same() {
    let text = "[2026-01-02T03:04:05.678Z] \"GET /a?q=\\\"1\\\" HTTP/1.1\" 200 - via_upstream - \"-\" 0 12 3 2 \"-\" \"curl/8 \\x41\" \"id-1\" \
        \"cart.shop\" \"127.0.0.1:8080\" inbound|8080|| 127.0.0.6:1 [::1]:8080 [2001:db8::7]:40000 \
        outbound_.80_._.cart.shop.svc.cluster.local default";
    let text = parse(text).unwrap();
    let json = r#"{"start_time":"2026-01-02T03:04:05.678Z","method":"GET","path":"/a?q=\"1\"","response_code":200,
        "response_code_details":"via_upstream","user_agent":"curl/8 A","request_id":"id-1","authority":"cart.shop",
        "upstream_cluster":"inbound|8080||","downstream_local_address":"[::1]:8080","x_forwarded_for":null,
        "downstream_remote_address":"[2001:db8::7]:40000",
        "requested_server_name":"outbound_.80_._.cart.shop.svc.cluster.local"}"#;
    assert_eq!(Some(&text), parse(json).as_ref());
    assert_eq!((text.method.as_str(), text.path.as_str()), ("GET", "/a?q=\"1\""));
    assert_eq!(text.client, "2001:db8::7".parse().ok());
    assert!(text.mutual && text.principal.is_none());
    assert_eq!(text.headers, [("user-agent", "curl/8 A".to_owned()), ("x-request-id", "id-1".to_owned())]);
}

#[test]
fn what_is_no_line_of_either_format_is_none() {
    for line in ["", "GET / HTTP/1.1", "{}", "{\"method\":", "[x] \"GET / HTTP/1.1", "{\"level\": \"info\"}"]
    {
        assert_eq!(parse(line), None, "{line}");
    }
}

#[test]
fn a_tightened_policy_tells_who_is_shut_out() {
    let log = [
        json("GET", "/items/1", Some("web")),
        json("GET", "/items/22", Some("web")),
        json("POST", "/items/3", Some("web")),
        json("GET", "/items/1", Some("job")),
    ];
    let all = "{rules: [{from: [{source: {namespaces: [shop]}}]}]}";
    let web = "{rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}], to: [{operation: {methods: [GET]}}]}]}";
    let found = changes(all, web, &log);
    let told: Vec<_> = found
        .changes
        .iter()
        .map(|change| (change.kind, &*change.group.method, &*change.group.path, change.group.count))
        .collect();
    let denied = Kind::AllowedToDenied;
    assert_eq!(told, [(denied, "GET", "/items/{id}", 1), (denied, "POST", "/items/{id}", 1)]);
    assert!(found.changes[0].group.caller.ends_with("/sa/job"));
    assert_eq!((found.requests, found.unknown), (4, 0));
    let back = changes(web, all, &log);
    assert!(back.changes.iter().all(|change| change.kind == Kind::DeniedToAllowed));
    assert!(!changes(all, all, &log).changes());
}

#[test]
fn what_depends_on_what_the_log_does_not_hold_is_unknown() {
    let all = "{rules: [{}]}";
    let log = [json("GET", "/open", None), json("GET", "/closed", None)];
    for (condition, named) in [
        ("from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]", "the caller"),
        ("when: [{key: \"request.auth.claims[groups]\", values: [a]}]", "request.auth.claims[groups]"),
        ("when: [{key: \"request.headers[x-tenant]\", values: [a]}]", "request.headers[x-tenant]"),
    ] {
        let tokens = "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: r, namespace: shop}\n\
            spec: {jwtRules: [{issuer: i, jwksUri: https://i/keys}]}\n";
        let new = format!("{{rules: [{{to: [{{operation: {{paths: [/open]}}}}]}}, {{{condition}}}]}}");
        let (old, new) = (resources(&(policy(all) + tokens)), resources(&(policy(&new) + tokens)));
        let found = replay(&old, &new, &mut log.join("\n").as_bytes(), None).unwrap();
        assert!(!found.changes(), "{condition}: {found}");
        assert_eq!((found.requests, found.unknown), (2, 1), "{condition}: {found}");
        assert_eq!(found.depends_on.iter().collect::<Vec<_>>(), [named]);
        assert_eq!(found.unknown_for[0].path, "/closed");
    }
}

#[test]
fn a_condition_that_is_not_known_and_does_not_matter_is_no_excuse() {
    let old = "{action: DENY, rules: [{when: [{key: \"request.headers[x-tenant]\", values: [a]}], to: [{operation: {paths: [/other]}}]}]}";
    let new = "{action: DENY, rules: [{to: [{operation: {paths: [/items]}}]}]}";
    let found = changes(old, new, &[json("GET", "/items", Some("web"))]);
    assert_eq!((found.unknown, found.changes.len()), (0, 1), "{found}");
}

#[test]
fn lines_that_cannot_be_asked_about_are_counted() {
    let deny = "{action: DENY, rules: [{}]}";
    let connection = json("-", "-", None);
    let elsewhere = json("GET", "/", None).replace("cart.shop", "nobody.knows");
    let long = format!("{{\"method\":\"{}\"}}", "x".repeat(super::MAX_LINE));
    let log = ["garbage".to_owned(), connection, elsewhere, long, json("GET", "/", None)];
    let found = changes("{rules: [{}]}", deny, &log);
    let counts = [found.lines, found.unreadable, found.connections, found.unplaced, found.requests];
    assert_eq!(counts, [5, 2, 1, 1, 1], "{found}");
    assert_eq!(found.changes.len(), 1);
}

#[test]
fn what_access_policies_ask_is_unknown_unless_nothing_changes_before_them() {
    let access = |effect: &str| {
        format!(
            "---\napiVersion: sidegate.io/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: x, namespace: shop}}\n\
             spec: {{rules: [{{when: [{{key: risk.score, below: 0.3}}], effect: {effect}}}]}}\n"
        )
    };
    let allow = policy("{rules: [{to: [{operation: {paths: [/a]}}]}]}");
    let other = policy("{rules: [{to: [{operation: {paths: [/b]}}]}]}");
    let log = json("GET", "/a", Some("web")) + "\n" + &json("GET", "/c", Some("web"));
    let unknown = |old: &str, new: &str| {
        let found = replay(&resources(old), &resources(new), &mut log.as_bytes(), None).unwrap();
        assert!(!found.changes(), "{found}");
        found.unknown
    };
    let [one, two] = [access("Allow"), access("Deny")];
    assert_eq!(unknown(&(allow.clone() + &one), &(allow.clone() + &two)), 1, "nobody lets the other through");
    assert_eq!(unknown(&(allow.clone() + &one), &(other + &one)), 1, "it may have been refused before");
    assert_eq!(unknown(&(allow.clone() + &one), &(allow + &one)), 0);
}
