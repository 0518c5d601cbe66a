use super::{cluster, codes, finding, istio, listener, load, proxy, run, run_on, service};
use crate::config::decode::{Strictness, decode};
use crate::mesh::{ChainProtocol, FilterChain, Listener, Mesh, Roots, TransportProtocol, UpstreamTlsWhen};
use std::sync::Arc;

fn peer(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "\n---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

const IDENTITY: &str = "identity: {files: {certificate: c, privateKey: k, trustBundle: r}}";

fn captured(more: &str) -> String {
    service("web", "[{port: 80, targetPort: 8080, name: http}, {port: 90, targetPort: 9090, name: tcp-x}]")
        + &proxy(&format!("{{interception: REDIRECT, workload: {{labels: {{app: web}}}}, {IDENTITY}}}"))
        + more
}

fn chains(mesh: &Mesh, port: u16) -> Vec<Arc<FilterChain>> {
    let inbound: &Listener = listener(mesh, "virtualInbound");
    inbound.chains.iter().filter(|chain| chain.matches.destination_port == Some(port)).cloned().collect()
}

/// What becomes of mutual TLS of the mesh, other TLS, and plain text: `ended`, `passed`, `plain`, `refused`.
fn fates(mesh: &Mesh, port: u16) -> [&'static str; 3] {
    let chains = chains(mesh, port);
    [(TransportProtocol::Tls, "istio"), (TransportProtocol::Tls, "h2"), (TransportProtocol::RawBuffer, "")]
        .map(|(transport, protocol)| {
            let fits = |chain: &&Arc<FilterChain>| {
                let matches = &chain.matches;
                matches.transport.is_none_or(|wanted| wanted == transport)
                    && (matches.application_protocols.is_empty()
                        || matches.application_protocols.iter().any(|one| one == protocol))
            };
            let best = chains.iter().filter(fits).max_by_key(|chain| {
                (chain.matches.transport.is_some(), !chain.matches.application_protocols.is_empty())
            });
            match best {
                Some(chain) if matches!(chain.protocol, ChainProtocol::Refuse(_)) => "refused",
                Some(chain) if chain.tls.is_some() => "ended",
                Some(_) if transport == TransportProtocol::Tls => "passed",
                Some(_) => "plain",
                None => "nowhere",
            }
        })
}

const STRICT: [&str; 3] = ["ended", "ended", "refused"];
const PERMISSIVE: [&str; 3] = ["ended", "passed", "plain"];
const DISABLED: [&str; 3] = ["passed", "passed", "plain"];

#[test]
fn the_narrowest_scope_that_says_something_wins() {
    let mesh = peer("istio-system", "mesh", "{mtls: {mode: STRICT}}");
    let open = peer("shop", "open", "{mtls: {mode: DISABLE}}");
    let unset = peer("shop", "unset", "{mtls: {mode: UNSET}}");
    let own = "{selector: {matchLabels: {app: web}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {8080: {mode: STRICT}, 7: {mode: UNSET}}}";
    let other = peer("shop", "other", "{selector: {matchLabels: {app: other}}, mtls: {mode: STRICT}}");
    for (objects, http, tcp) in [
        (String::new(), PERMISSIVE, PERMISSIVE),
        (mesh.clone(), STRICT, STRICT),
        (format!("{mesh}{open}"), DISABLED, DISABLED),
        (format!("{mesh}{unset}"), STRICT, STRICT),
        (format!("{open}{}", peer("shop", "own", own)), STRICT, PERMISSIVE),
        (format!("{mesh}{other}"), STRICT, STRICT),
        (other, PERMISSIVE, PERMISSIVE),
    ] {
        let output = run(&captured(&objects));
        assert_eq!(fates(&output.mesh, 8080), http, "{objects}");
        assert_eq!(fates(&output.mesh, 9090), tcp, "{objects}");
    }
}

#[test]
fn undeclared_ports_follow_the_workload() {
    let output = run(&captured(&peer("shop", "default", "{mtls: {mode: STRICT}}")));
    let inbound = listener(&output.mesh, "virtualInbound");
    let refuses = |chain: &Arc<FilterChain>| matches!(chain.protocol, ChainProtocol::Refuse(_));
    assert!(inbound.default_chain.as_ref().is_some_and(refuses));
    let last = inbound.chains.last().unwrap();
    assert!(last.tls.is_some() && last.matches.destination_port.is_none());
}

#[test]
fn of_two_in_one_scope_the_older_counts_and_root_selectors_hold_for_none() {
    let two = peer("shop", "a", "{mtls: {mode: DISABLE}}") + &peer("shop", "b", "{mtls: {mode: STRICT}}");
    let output = run(&captured(&two));
    assert_eq!(fates(&output.mesh, 8080), DISABLED);
    assert!(finding(&output, "shadowed").message.contains("shop/a"));
    let root = peer("istio-system", "a", "{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}}");
    let output = run(&captured(&root));
    assert_eq!(fates(&output.mesh, 8080), PERMISSIVE);
    assert_eq!(finding(&output, "root-selector").field, "spec.selector");
}

#[test]
fn strict_without_identity_refuses_everything_and_says_so() {
    let yaml = service("web", "[{port: 80, targetPort: 8080, name: http}]")
        + &proxy("{interception: REDIRECT, workload: {labels: {app: web}}}")
        + &peer("shop", "default", "{mtls: {mode: STRICT}}");
    let output = run(&yaml);
    assert_eq!(fates(&output.mesh, 8080), ["refused"; 3]);
    assert!(finding(&output, "no-identity").hint.contains("sidegate certs"));
}

#[test]
fn a_listener_that_cannot_tell_ports_apart_takes_the_strictest() {
    let own = "{selector: {matchLabels: {app: web}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {8080: {mode: STRICT}, 9090: {mode: DISABLE}}}";
    let yaml = service("web", "[{port: 80, targetPort: 8080, name: http}]")
        + &proxy(&format!("{{workload: {{labels: {{app: web}}}}, {IDENTITY}}}"))
        + &peer("shop", "own", own);
    let output = run(&yaml);
    let inbound = listener(&output.mesh, "inbound");
    assert!(matches!(inbound.default_chain.as_ref().unwrap().protocol, ChainProtocol::Refuse(_)));
    assert!(inbound.chains.iter().any(|chain| chain.tls.is_some()));
    assert!(finding(&output, "port-mode").field.contains("9090"));
}

#[test]
fn sidecars_are_called_by_mutual_tls_and_others_as_they_are() {
    let entry = |name: &str, labels: &str, account: &str| {
        istio(
            "WorkloadEntry",
            name,
            &format!("{{address: 192.0.2.{name}, labels: {{app: web{labels}}}, serviceAccount: {account}}}"),
        )
        .replace(&format!("name: {name},"), &format!("name: w{name},"))
    };
    let marked = ", security.istio.io/tlsMode: istio";
    let yaml = service("web", "[{port: 80, name: http}]")
        + &entry("1", marked, "web")
        + &entry("2", "", "web")
        + &proxy(&format!("{{{IDENTITY}}}"));
    let web = "outbound|80||web.shop.svc.cluster.local";
    let mesh = run(&yaml).mesh;
    let tls = cluster(&mesh, web).tls.clone().unwrap();
    assert_eq!(tls.when, UpstreamTlsWhen::EndpointHasSidecar);
    assert_eq!(tls.sni.as_deref(), Some("outbound_.80_._.web.shop.svc.cluster.local"));
    assert_eq!(tls.names, ["spiffe://cluster.local/ns/shop/sa/web".into()]);
    let sidecars = |mesh: &Mesh| -> Vec<bool> {
        mesh.endpoints[web].endpoints.iter().map(|endpoint| endpoint.sidecar).collect()
    };
    assert_eq!(sidecars(&mesh), [true, false]);
    let off = run(&format!("{yaml}{}", peer("shop", "off", "{mtls: {mode: DISABLE}}"))).mesh;
    assert_eq!(sidecars(&off), [false, false]);
    for (instead, why) in [
        (String::new(), "a proxy without identity has nothing to show"),
        (format!("{IDENTITY}, meshConfig: {{enableAutoMtls: false}}"), "it is switched off"),
    ] {
        let mesh = run(&yaml.replace(IDENTITY, &instead)).mesh;
        assert_eq!(cluster(&mesh, web).tls, None, "{why}");
    }
}

#[test]
fn destination_rules_say_how_tls_begins() {
    let rule = |tls: &str| {
        let rule = istio(
            "DestinationRule",
            "r",
            &format!(
                "{{host: web, trafficPolicy: {{tls: {tls}}}, subsets: [{{name: v1, labels: {{version: v1}}}}]}}"
            ),
        );
        let output =
            run(&(service("web", "[{port: 80, name: http}]") + &proxy(&format!("{{{IDENTITY}}}")) + &rule));
        assert!(!codes(&output).contains(&"conflict"));
        cluster(&output.mesh, "outbound|80|v1|web.shop.svc.cluster.local").tls.clone()
    };
    assert_eq!(rule("{mode: DISABLE}"), None);
    let mutual = rule("{mode: ISTIO_MUTUAL}").unwrap();
    assert_eq!((mutual.when, mutual.mesh), (UpstreamTlsWhen::Always, true));
    assert_eq!(mutual.sni.as_deref(), Some("outbound_.80_.v1_.web.shop.svc.cluster.local"));
    let simple = rule("{mode: SIMPLE, sni: a.example, subjectAltNames: [b.example]}").unwrap();
    assert_eq!((simple.roots.clone(), simple.mesh, simple.certificate.clone()), (Roots::System, false, None));
    assert_eq!((simple.sni.as_deref(), &simple.names[..]), (Some("a.example"), &["b.example".into()][..]));
    let own = rule("{mode: MUTUAL, credentialName: c}").unwrap();
    assert_eq!(own.roots, Roots::Credential("c".into()));
    assert_eq!(rule("{mode: SIMPLE, insecureSkipVerify: true}").unwrap().roots, Roots::Unverified);
}

#[test]
fn a_rejected_object_without_a_predecessor_closes_its_scope() {
    let broken = peer("shop", "broken", "{selector: {matchLabels: {app: web}}, mtls: {mode: STRIKT}}");
    let reading = decode(&std::path::Path::new("t.yaml").into(), &broken, Strictness::default());
    let object = reading.objects.into_iter().next().unwrap();
    assert!(object.resource.is_none());
    let mut resources = load(&captured(""));
    resources.push(object.stand_in.unwrap());
    assert_eq!(fates(&run_on(&resources).mesh, 8080), STRICT);
    let other = load(&captured("").replace("app: web", "app: other"));
    let closed = resources.pop().unwrap();
    let output = run_on(&[other, vec![closed]].concat());
    assert_eq!(fates(&output.mesh, 8080), PERMISSIVE, "another workload");
}

#[test]
fn the_names_of_a_service_entry_hold_although_its_endpoints_name_no_account() {
    let entry = istio(
        "ServiceEntry",
        "db",
        "{hosts: [db.shop.internal], ports: [{number: 80, name: http, protocol: HTTP}], location: MESH_INTERNAL, resolution: STATIC, \
         subjectAltNames: ['spiffe://cluster.local/ns/db/sa/db'], endpoints: [{address: 192.0.2.1}]}",
    );
    let output = run(&(proxy(&format!("{{{IDENTITY}}}")) + &entry));
    let tls = cluster(&output.mesh, "outbound|80||db.shop.internal").tls.clone().unwrap();
    assert_eq!(tls.names, ["spiffe://cluster.local/ns/db/sa/db".into()]);
}
