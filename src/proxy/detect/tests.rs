use proptest::prelude::*;

use super::*;

/// The verdict, and how many bytes it took.
fn verdict(bytes: &[u8]) -> (Detected, usize) {
    for end in 0..=bytes.len() {
        let verdict = classify(&bytes[..end]);
        if verdict != Detected::NeedMore {
            return (verdict, end);
        }
    }
    (Detected::NeedMore, bytes.len())
}

#[test]
fn http_1_is_told_by_its_request_line() {
    for line in [
        "GET / HTTP/1.1\r\n",
        "OPTIONS * HTTP/1.1\r\n",
        "CONNECT [::1]:80 HTTP/1.1\r\n",
        "PATCH http://a/ HTTP/1.0\r\n",
        "PURGE /x HTTP/1.1\r\n",
        "get / HTTP/1.1\n",
        "M-SEARCH * HTTP/1.1\r\n",
        "PRINT / HTTP/1.1\r\n",
        "\r\nGET / HTTP/1.1\r\n",
        "\nPOST / HTTP/1.1\r\n",
        "GET  / HTTP/1.1 \r\n",
        "GET http://a/ HTTP/1.1\r\n",
        "PRI * HTTP/1.1\r\n",
        "POST",
    ] {
        let (told, _) = verdict(line.as_bytes());
        let expected = if line == "POST" { Detected::NeedMore } else { Detected::Http1 };
        assert_eq!(told, expected, "{line:?}");
    }
    assert_eq!(verdict(b"GET / HTTP/1.1\r\n"), (Detected::Http1, 5));
}

#[test]
fn http_2_is_the_whole_preface() {
    assert_eq!(verdict(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), (Detected::Http2, 24));
    assert_eq!(verdict(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"), (Detected::NeedMore, 23));
    assert_eq!(verdict(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").0, Detected::Unknown);
}

#[test]
fn tls_is_a_record_with_a_client_hello() {
    assert_eq!(verdict(&[0x16, 3, 1, 2, 0, 1, 0]), (Detected::Tls, 6));
    assert_eq!(verdict(&[0x16, 3, 3, 0x40, 0, 1]), (Detected::Tls, 6));
    assert_eq!(verdict(&[0x16, 3, 1]), (Detected::NeedMore, 3));
    assert_eq!(verdict(&[0x16, 2]), (Detected::Unknown, 2));
    assert_eq!(verdict(&[0x16, 3, 9]), (Detected::Unknown, 3));
    assert_eq!(verdict(&[0x16, 3, 1, 0xff]), (Detected::Unknown, 4));
    assert_eq!(verdict(&[0x16, 3, 1, 2, 0, 2]), (Detected::Unknown, 6));
}

#[test]
fn what_is_nothing_of_ours_is_told_at_once() {
    for (bytes, within) in [
        (&b"\x00\x00\x00\x08\x04\xd2\x16\x2f"[..], 1), // SSLRequest of Postgres
        (b"*1\r\n$4\r\nPING\r\n", 3),                  // RESP of Redis
        (b"CONNECT {\"verbose\":false}\r\n", 9),       // NATS
        (b"EHLO mail.example\r\n", 19),
        (b"set key 0 0 1\r\n", 15),
        (b"SSH-2.0-OpenSSH_9\r\n", 18),
        (b"\x10\x0c\x00\x04MQTT", 1),
        (b"\r\n\r\n\r\n\0", 7),
        (b" / HTTP/1.1", 1),
        (b"AVERYLONGWORDTHATISNOMETHOD / HTTP/1.1", 25),
        (b"GET key\r\n", 9),
        (b"\x80", 1),
    ] {
        let (told, took) = verdict(bytes);
        assert_eq!(told, Detected::Unknown, "{bytes:?}");
        assert!(took <= within, "{bytes:?} took {took}");
    }
}

#[test]
fn a_verdict_is_not_waited_for_without_end() {
    for start in [&b"FOO /"[..], b"GET ", b"\r\n", b"GET a"] {
        let fill = if start.ends_with(b" ") {
            b' '
        } else if start == b"\r\n" {
            b'\n'
        } else {
            b'a'
        };
        let mut line = start.to_vec();
        line.resize(MAX_UNDECIDED - 1, fill);
        assert_eq!(classify(&line), Detected::NeedMore);
        line.resize(MAX_UNDECIDED, fill);
        assert_eq!(classify(&line), Detected::Unknown);
    }
}

#[test]
fn ports_known_for_talkative_servers_are_not_sniffed() {
    for port in [25, 53, 587, 3306, 4444, 5432, 6379, 9300, 11211, 27017] {
        assert!(server_first(port), "{port}");
    }
    for port in [80, 443, 8080, 15006, 0] {
        assert!(!server_first(port), "{port}");
    }
}

proptest! {
    #[test]
    fn a_verdict_is_final(bytes in prop::collection::vec(any::<u8>(), 0..40), start in 0..5usize) {
        let starts: [&[u8]; 5] = [b"", b"GET ", b"PRI * HTTP", b"FOO /", b"\x16\x03\x01\x00"];
        let bytes = [starts[start], &bytes].concat();
        let (told, took) = verdict(&bytes);
        for end in took..=bytes.len() {
            // HTTP/1 with an unknown method is told at the end of the line, and so is its opposite.
            prop_assert_eq!(classify(&bytes[..end]), told);
        }
    }

    #[test]
    fn a_request_line_with_any_method_is_http(
        method in "[A-Za-z!#$%&'*+.^_`|~-]{1,24}", target in "[/*?%.a-z0-9\\[][!-~]{0,20}", spaces in " {1,3}", minor in 0..2u8,
    ) {
        let line = format!("{method}{spaces}{target} HTTP/1.{minor}\r\n\r\n");
        let told = verdict(line.as_bytes()).0;
        prop_assert_eq!(told, Detected::Http1);
    }
}
