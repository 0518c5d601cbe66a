//! The policies of the shop, request by request.

use super::*;

/// `payment-service-authz`: order-service may process payments, ecommerce-admin may look at them.
fn payment() -> Arc<Compiled> {
    let process = Rule {
        from: vec![Source {
            principals: texts(["cluster.local/ns/ecommerce/sa/order-service"]),
            ..Source::default()
        }],
        to: vec![Operation { methods: texts(["POST"]), ..paths(["/api/payments/process"]) }],
        ..Rule::default()
    };
    let look = Rule {
        from: vec![Source { namespaces: texts(["ecommerce-admin"]), ..Source::default() }],
        to: vec![Operation { methods: texts(["GET"]), ..paths(["/api/payments/*"]) }],
        ..Rule::default()
    };
    let policy = policy("payment-service-authz", Action::Allow, vec![process, look]);
    compile(vec![Policy { namespace: "ecommerce".into(), ..policy }])
}

const ORDER: &str = "ecommerce/order-service";
const ADMIN: &str = "ecommerce-admin/console";

#[test]
fn order_service_may_process_a_payment_and_nothing_else() {
    let payment = payment();
    let process = |method: &str, path: &str| Asked::new(method, path).by(ORDER);
    assert!(passes(&payment, &process("POST", "/api/payments/process")));
    assert!(passes(&payment, &process("POST", "/api/payments/process?retry=1")));
    for (method, path) in [
        ("GET", "/api/payments/process"),
        ("post", "/api/payments/process"),
        ("POST", "/api/payments/process/"),
        ("POST", "/api/payments/refund"),
        ("POST", "/API/payments/process"),
    ] {
        assert!(!passes(&payment, &process(method, path)), "{method} {path}");
    }
}

#[test]
fn any_account_of_ecommerce_admin_may_look_at_payments() {
    let payment = payment();
    assert!(passes(&payment, &Asked::get("/api/payments/42").by(ADMIN)));
    assert!(passes(&payment, &Asked::get("/api/payments/").by("ecommerce-admin/other")));
    assert!(!passes(&payment, &Asked::get("/api/payments").by(ADMIN)));
    assert!(!passes(&payment, &Asked::new("POST", "/api/payments/process").by(ADMIN)));
    assert!(!passes(&payment, &Asked::get("/api/payments/42").by("ecommerce/console")));
}

#[test]
fn everybody_else_is_refused_the_gateway_and_callers_without_certificate_too() {
    let payment = payment();
    for caller in
        ["ecommerce/cart", "istio-system/ingressgateway", "ecommerce-admin2/x", "other/order-service"]
    {
        assert!(!passes(&payment, &Asked::new("POST", "/api/payments/process").by(caller)), "{caller}");
    }
    let denial = denial(&payment, &Asked::new("POST", "/api/payments/process"));
    assert_eq!(
        denial.to_string(),
        "denied: no ALLOW rule holds; nearest is AuthorizationPolicy ecommerce/payment-service-authz rule 0, where \
         from.source.principals is no verified peer, not cluster.local/ns/ecommerce/sa/order-service"
    );
}

#[test]
fn a_principal_of_another_trust_domain_is_another_principal() {
    let mut asked = Asked::new("POST", "/api/payments/process");
    asked.connection.tls = Some(tls(Some(Principal::new("other.local", "ecommerce", "order-service"))));
    assert!(!passes(&payment(), &asked));
}

#[test]
fn every_rule_of_the_shop_is_found_by_the_index() {
    assert_eq!((payment().rules(), payment().linear_rules()), (2, 0));
}
