use http::HeaderValue;

use super::*;

fn line(format: &Format, record: &Record<'_>) -> String {
    let mut out = Vec::new();
    Formatter::default().write(format, record, &mut out);
    String::from_utf8(out).unwrap()
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())).collect()
}

fn request<'a>(headers: &'a HeaderMap) -> Record<'a> {
    Record {
        start: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_255_200_123),
        duration: Duration::from_micros(12_900),
        upstream_service_time: Some(Duration::from_millis(11)),
        method: Some("GET"),
        path: Some("/v2/cart?id=1"),
        original_path: Some("/cart?id=1"),
        authority: Some("cart:9080"),
        protocol: Some(http::Version::HTTP_11),
        response_code: Some(200),
        details: Some("via_upstream"),
        bytes_received: 5,
        bytes_sent: 178,
        request_headers: Some(headers),
        upstream_host: Some("10.1.2.3:9080".parse().unwrap()),
        cluster: Some("outbound|9080||cart.shop.svc.cluster.local"),
        upstream_local: Some("10.1.2.4:51034".parse().unwrap()),
        downstream_local: Some("10.96.0.7:9080".parse().unwrap()),
        downstream_remote: Some("[fd00::1]:40000".parse().unwrap()),
        route_name: Some("default"),
        ..Record::default()
    }
}

#[test]
fn a_request_is_written_in_istios_text_format() {
    let headers = headers(&[("user-agent", "curl/8.7.1"), ("x-request-id", "abc-1")]);
    assert_eq!(
        line(&Format::istio_text().unwrap(), &request(&headers)),
        "[2026-11-21T10:00:00.123Z] \"GET /cart?id=1 HTTP/1.1\" 200 - via_upstream - \"-\" 5 178 12 11 \"-\" \
         \"curl/8.7.1\" \"abc-1\" \"cart:9080\" \"10.1.2.3:9080\" outbound|9080||cart.shop.svc.cluster.local \
         10.1.2.4:51034 10.96.0.7:9080 [fd00::1]:40000 - default\n"
    );
}

#[test]
fn a_request_is_written_in_istios_json_format_with_numbers_and_nulls() {
    let headers = headers(&[("user-agent", "curl \"8\"")]);
    let written = line(&Format::istio_json().unwrap(), &request(&headers));
    assert!(written.ends_with("}\n"));
    let value: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!(value.as_object().unwrap().len(), 24);
    assert_eq!(value["start_time"], "2026-11-21T10:00:00.123Z");
    assert_eq!(value["path"], "/cart?id=1");
    assert_eq!(value["response_code"], 200);
    assert_eq!(value["response_flags"], "-");
    assert_eq!(value["upstream_service_time"], 11);
    assert_eq!(value["user_agent"], "curl \"8\"");
    assert_eq!(value["x_forwarded_for"], serde_json::Value::Null);
    assert_eq!(value["upstream_transport_failure_reason"], serde_json::Value::Null);
    assert_eq!(value["downstream_remote_address"], "[fd00::1]:40000");
}

#[test]
fn a_tcp_connection_has_dashes_where_http_has_values() {
    let record = Record {
        bytes_received: 10,
        bytes_sent: 20,
        flags: ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
        upstream_transport_failure: Some("connection refused"),
        ..Record::default()
    };
    assert_eq!(
        line(&Format::istio_text().unwrap(), &record),
        "[1970-01-01T00:00:00.000Z] \"- - -\" - UF - - \"connection refused\" 10 20 0 - \"-\" \"-\" \"-\" \"-\" \
         \"-\" - - - - - -\n"
    );
}

#[test]
fn a_caller_cannot_forge_lines_or_columns() {
    let mut map = HeaderMap::new();
    map.insert("x-envoy-original-path", HeaderValue::from_static("/innocent"));
    map.insert("user-agent", HeaderValue::from_bytes(b"a\" 200 \tb\xff\xc3\xa9").unwrap());
    let record = Record {
        path: Some("/x\n[2026] \"GET /admin"),
        original_path: None,
        server_name: Some("a b\r\n"),
        ..request(&map)
    };
    let text = line(&Format::istio_text().unwrap(), &record);
    assert_eq!(text.matches('\n').count(), 1);
    assert!(text.contains("\"GET /x\\x0a[2026] \\\"GET /admin HTTP/1.1\""), "{text}");
    assert!(text.contains("\"a\\\" 200 \\x09b\\xff\\xc3\\xa9\""), "{text}");
    assert!(text.ends_with(" a_b\\x0d\\x0a default\n"), "{text}");
    let json = line(&Format::istio_json().unwrap(), &record);
    assert_eq!(json.matches('\n').count(), 1);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["user_agent"], "a\" 200 \tb\u{fffd}é");
    assert_eq!(value["path"], "/x\n[2026] \"GET /admin");
}

#[test]
fn custom_operators_are_understood() {
    let request_headers = headers(&[("x-user", "alice-and-bob"), ("x-b", "second")]);
    let response_headers = headers(&[("server", "nginx")]);
    let record = Record {
        response_headers: Some(&response_headers),
        grpc_status: Some(14),
        attempts: 2,
        peer_identity: Some("spiffe://cluster.local/ns/shop/sa/web"),
        ..request(&request_headers)
    };
    for (format, expected) in [
        ("%REQ(X-USER):5%", "alice\n"),
        ("%REQ(X-A?X-B)%", "second\n"),
        ("%REQ(X-A)% 100%%\n", "- 100%\n"),
        ("%RESP(SERVER)%", "nginx\n"),
        ("%RESP(:STATUS)%", "200\n"),
        ("%TRAILER(X)%", "-\n"),
        ("%REQ_WITHOUT_QUERY(X-ENVOY-ORIGINAL-PATH?:PATH)%", "/cart\n"),
        ("%REQ_WITHOUT_QUERY(:PATH):4%", "/v2/\n"),
        ("%START_TIME(%s.%3f)% %START_TIME(%Y)%", "1795255200.123 2026\n"),
        ("%GRPC_STATUS% %GRPC_STATUS_NUMBER%", "Unavailable 14\n"),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "fd00::1\n"),
        ("%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_REMOTE_PORT%", "10.1.2.3 9080\n"),
        ("%DOWNSTREAM_PEER_URI_SAN%", "spiffe://cluster.local/ns/shop/sa/web\n"),
        ("%UPSTREAM_REQUEST_ATTEMPT_COUNT% %RESPONSE_TX_DURATION%", "2 -\n"),
    ] {
        assert_eq!(line(&Format::text(format).unwrap(), &record), expected, "{format}");
    }
}

#[test]
fn a_custom_json_format_keeps_types_order_and_nesting() {
    let map = HeaderMap::new();
    let format = r#"{"who": {"ua": "%REQ(USER-AGENT)%", "both": "%REQ(:METHOD)% \"%REQ(X)%\""}, "code": "%RESPONSE_CODE%", "v": 1}"#;
    let format = Format::json_text(format).unwrap();
    assert_eq!(
        line(&format, &request(&map)),
        "{\"who\":{\"ua\":null,\"both\":\"GET \\\"-\\\"\"},\"code\":200,\"v\":1}\n"
    );
}

#[test]
fn a_wrong_format_is_refused_by_name_and_position() {
    for (format, expected) in [
        ("é %RESPONSE_COD%", "unknown operator %RESPONSE_COD% at character 3; did you mean %RESPONSE_CODE%?"),
        ("%DYNAMIC_METADATA(a:b)%", "unknown operator %DYNAMIC_METADATA% at character 1"),
        (
            "ok 100% wrong",
            "the % at character 7 starts an operator that does not end; write %% for a percent sign",
        ),
        ("%REQ%", "%REQ% at character 1: name a header in brackets, as in REQ(USER-AGENT)"),
        ("%REQ(a b)%", "%REQ(a b)% at character 1: \"a b\" is not a header name"),
        (
            "%REQ(A):x%",
            "%REQ(A):x% at character 1: \"x\" is not a length; write a number of bytes after the colon",
        ),
        ("%DURATION(5)%", "%DURATION(5)% at character 1: it takes no argument; remove (5)"),
        ("%START_TIME(%Q)%", "%START_TIME(%Q)% at character 1: %Q is not a known time specifier"),
    ] {
        assert_eq!(Format::text(format).unwrap_err().to_string(), expected);
    }
    let nested = Format::json_text(r#"{"a": {"b": "%NOPE%"}}"#).unwrap_err();
    assert_eq!(nested.to_string(), "key \"a\": key \"b\": unknown operator %NOPE% at character 1");
    assert!(Format::json_text("foo").unwrap_err().to_string().starts_with("not a JSON format: "));
    assert!(Format::json_text("[]").unwrap_err().to_string().contains("expected an object"));
}

proptest::proptest! {
    #[test]
    fn numbers_and_addresses_are_written_as_they_display(number: u64, shift in 0_u32..64, ip: [u8; 4], port: u16) {
        let number = number >> shift;
        let mut out = Vec::new();
        operator::push_number(number, &mut out);
        out.push(b' ');
        let address = SocketAddr::from((ip, port));
        operator::AddressPart::Whole.write(address, &mut out);
        out.push(b' ');
        operator::AddressPart::WithoutPort.write(address, &mut out);
        proptest::prop_assert_eq!(String::from_utf8(out).unwrap(), format!("{number} {address} {}", address.ip()));
    }
}
