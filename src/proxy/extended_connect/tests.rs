use super::*;

fn head(method: &str, headers: &[(&str, &str)]) -> request::Parts {
    let mut request = http::Request::builder().method(method).uri("http://a.shop/chat");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn extended(protocol: &'static str) -> request::Parts {
    let mut head = head("CONNECT", &[]);
    head.extensions.insert(hyper::ext::Protocol::from_static(protocol));
    head
}

fn answer(status: u16, headers: &[(&str, &str)]) -> response::Parts {
    let mut response = http::Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(()).unwrap().into_parts().0
}

#[test]
fn the_accept_of_a_key_is_that_of_the_rfc() {
    let accept = accept_of(b"dGhlIHNhbXBsZSBub25jZQ==").unwrap();
    assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[test]
fn an_extended_connect_is_seen_as_an_upgrade() {
    let mut message = extended("websocket");
    assert!(to_upgrade(&mut message));
    assert_eq!(message.method, Method::GET);
    assert_eq!(message.headers[UPGRADE], "websocket");
    assert_eq!(message.headers[CONNECTION], "upgrade");
    check(&message).unwrap();

    message.headers.remove(UPGRADE);
    assert_eq!(check(&message).unwrap_err().reason(), Reason::UpgradeRefused);
    assert!(!to_upgrade(&mut head("CONNECT", &[])), "a plain CONNECT stays one");
    assert!(!to_upgrade(&mut head("GET", &[("upgrade", "websocket")])));
}

#[test]
fn an_upgrade_becomes_an_extended_connect_and_its_answer_a_101_with_the_right_accept() {
    let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let mut message = head("GET", &[("upgrade", "WebSocket"), ("connection", "upgrade"), key]);
    let opening = Opening::begin(&mut message, true).unwrap().unwrap();
    assert!(opening.is_extended());
    assert_eq!(message.method, Method::CONNECT);
    assert_eq!(message.extensions.get::<h2::ext::Protocol>().unwrap().as_str(), "websocket");
    assert!(message.headers.is_empty(), "{:?}", message.headers);

    let mut opened = answer(200, &[("x-own", "1"), ("content-length", "0")]);
    opening.opened(&mut opened);
    assert_eq!(opened.status, 101);
    assert_eq!(opened.headers[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(opened.headers[UPGRADE], "WebSocket");
    assert_eq!(opened.headers["x-own"], "1");
    assert!(!opened.headers.contains_key(CONTENT_LENGTH));
}

#[test]
fn what_an_extended_connect_cannot_say_is_refused() {
    for (method, upgrade, no_body) in [
        ("POST", "websocket", true),
        ("GET", "websocket, other", true),
        ("GET", "", true),
        ("GET", "websocket", false),
        ("CONNECT", "", false),
    ] {
        let mut message = head(method, &[("upgrade", upgrade)]);
        let refused = Opening::begin(&mut message, no_body).unwrap_err();
        assert_eq!(refused.reason(), Reason::UpgradeRefused, "{method} {upgrade:?} {no_body}");
    }
    assert!(Opening::begin(&mut head("GET", &[]), false).unwrap().is_none());
    assert!(matches!(Opening::begin(&mut head("CONNECT", &[]), true), Ok(Some(Opening::Connect))));
}

#[test]
fn a_websocket_server_gets_a_key_and_its_proof_is_checked() {
    let mut message = extended("websocket");
    to_upgrade(&mut message);
    let handshake = Handshake::begin(&mut message).unwrap();
    let accept = accept_of(message.headers[SEC_WEBSOCKET_KEY].as_bytes()).unwrap();
    handshake.check(&answer(101, &[("sec-websocket-accept", accept.to_str().unwrap())])).unwrap();
    handshake.check(&answer(403, &[])).unwrap();
    for wrong in [
        answer(101, &[]),
        answer(101, &[("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")]),
        answer(200, &[]),
        answer(204, &[]),
    ] {
        assert_eq!(handshake.check(&wrong).unwrap_err().reason(), Reason::UpstreamProtocol);
    }
    assert!(Handshake::begin(&mut head("GET", &[("upgrade", "websocket")])).is_none());
}

#[test]
fn http_2_is_never_offered_to_an_upstream() {
    for (upgrade, offered) in
        [("h2c", true), ("websocket, H2C", true), ("h2c/1", true), ("websocket", false), ("h2cc", false)]
    {
        assert_eq!(offers_http2(&head("GET", &[("upgrade", upgrade)]).headers), offered, "{upgrade}");
    }
}
