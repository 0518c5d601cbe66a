use proptest::prelude::*;

use super::*;

fn done(bytes: &[u8]) -> (Header, usize) {
    match parse(bytes) {
        Parsed::Done { header, consumed } => (header, consumed),
        other => panic!("{bytes:?}: {other:?}"),
    }
}

fn inet(source: &str, destination: &str) -> Addresses {
    Addresses::Inet { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&SIGNATURE_V2[..], &[command, family], &length, payload].concat()
}

#[test]
fn lines_of_version_1_are_read() {
    let of = |line: &str| done(line.as_bytes()).0.addresses;
    assert_eq!(of("PROXY TCP4 1.2.3.4 5.6.7.8 111 80\r\n"), inet("1.2.3.4:111", "5.6.7.8:80"));
    assert_eq!(of("PROXY TCP6 2001:db8::1 ::1 0 65535\r\n"), inet("[2001:db8::1]:0", "[::1]:65535"));
    assert_eq!(of("PROXY UNKNOWN\r\n"), Addresses::Own);
    assert_eq!(of("PROXY UNKNOWN ffff::1 whatever\r\n"), Addresses::Own);
    assert_eq!(done(b"PROXY UNKNOWN\r\nGET /").1, 15);
}

#[test]
fn broken_lines_are_refused() {
    use Refusal::*;
    for (line, refusal) in [
        ("GET / HTTP/1.1\r\n", NoHeader),
        ("PROXY\t", NoHeader),
        ("proxy TCP4", NoHeader),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", BadLine),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", BadLine),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n", BadLine),
        ("PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n", BadAddress),
        ("PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", BadLine),
        ("PROXY \r\n", BadLine),
        ("PROXY TCP4 ::1 ::1 1 2\r\n", BadAddress),
        ("PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n", BadAddress),
        ("PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n", BadAddress),
        ("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", BadAddress),
        ("PROXY TCP6 fe80::1%1 ::1 1 2\r\n", BadAddress),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n", BadPort),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n", BadPort),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n", BadPort),
        ("PROXY TCP4 1.2.3.4 5.6.7.8  2\r\n", BadPort),
    ] {
        assert_eq!(parse(line.as_bytes()), Parsed::Invalid(refusal), "{line:?}");
    }
    let mut long = b"PROXY UNKNOWN ".to_vec();
    long.resize(106, b'x');
    assert_eq!(parse(&long), Parsed::NeedMore);
    long.push(b'x');
    assert_eq!(parse(&long), Parsed::Invalid(LineTooLong));
    let longest = [&long[..105], b"\r\n"].concat();
    assert_eq!(done(&longest).1, 107);
}

#[test]
fn headers_of_version_2_are_read() {
    let four = [1, 2, 3, 4, 5, 6, 7, 8, 0, 111, 0, 80];
    assert_eq!(done(&v2(0x21, 0x11, &four)).0.addresses, inet("1.2.3.4:111", "5.6.7.8:80"));
    let with_tlvs = v2(0x21, 0x11, &[&four[..], &[0xd0, 0, 2, 9, 9], &[4, 0, 0]].concat());
    assert_eq!(done(&with_tlvs), (done(&v2(0x21, 0x11, &four)).0, with_tlvs.len()));
    for local in [v2(0x20, 0, &[]), v2(0x20, 0x11, &four), v2(0x20, 0xff, &[1]), v2(0x21, 0, &[1, 2])] {
        assert_eq!(done(&local), (Header { version: Version::V2, addresses: Addresses::Own }, local.len()));
    }
    let mut unix = [0; 216];
    unix[..4].copy_from_slice(b"/a\0b");
    assert_eq!(
        done(&v2(0x21, 0x31, &unix)).0.addresses,
        Addresses::Unix { source: b"/a\0b"[..].into(), destination: [].into() }
    );
}

#[test]
fn broken_headers_of_version_2_are_refused_as_soon_as_they_can_be() {
    use Refusal::*;
    let four = [0; 12];
    let cases = [
        (v2(0x11, 0x11, &four), 13, BadCommand),
        (v2(0x22, 0x11, &four), 13, BadCommand),
        (v2(0x21, 0x12, &four), 14, BadFamily),
        (v2(0x21, 0x22, &[0; 36]), 14, BadFamily),
        (v2(0x21, 0x41, &four), 14, BadFamily),
        (v2(0x21, 0x11, &four[1..]), 16, BadLength),
        (v2(0x21, 0x21, &four), 16, BadLength),
        (v2(0x21, 0x11, &[0; 4097]), 16, BadLength),
        (v2(0x20, 0, &[0; 4097]), 16, BadLength),
        (v2(0x21, 0x11, &[&four[..], &[1]].concat()), 29, BadTlv),
        (v2(0x21, 0x11, &[&four[..], &[1, 0, 2, 0]].concat()), 32, BadTlv),
    ];
    for (bytes, at, refusal) in cases {
        assert_eq!(parse(&bytes[..at - 1]), Parsed::NeedMore, "{refusal:?}");
        assert_eq!(parse(&bytes[..at]), Parsed::Invalid(refusal));
    }
    assert_eq!(parse(b"\r\n\r\n\0\r\nQUIX"), Parsed::Invalid(NoHeader));
    assert_eq!(parse(b"\r\n\r\n\0\r\nQUI"), Parsed::NeedMore);
    assert_eq!(parse(b""), Parsed::NeedMore);
}

#[test]
fn what_one_version_cannot_say_is_left_unsaid() {
    let mixed = inet("1.2.3.4:1", "[::1]:2");
    let mut out = Vec::new();
    write_v1(&mut out, &mixed);
    assert_eq!(out, b"PROXY UNKNOWN\r\n");
    let mut out = Vec::new();
    write_v2(&mut out, &mixed);
    assert_eq!(done(&out).0.addresses, inet("[::ffff:1.2.3.4]:1", "[::1]:2"));
    let mut out = Vec::new();
    write_v2(&mut out, &Addresses::Unix { source: [1; 109].into(), destination: [].into() });
    assert_eq!(done(&out).0.addresses, Addresses::Own);
}

fn addresses() -> impl Strategy<Value = Addresses> {
    let path = || prop::collection::vec(1..=255u8, 0..=108).prop_map(Vec::into_boxed_slice);
    let v4 = || any::<([u8; 4], u16)>().prop_map(SocketAddr::from);
    let v6 = || any::<([u8; 16], u16)>().prop_map(SocketAddr::from);
    prop_oneof![
        Just(Addresses::Own),
        (v4(), v4()).prop_map(|(source, destination)| Addresses::Inet { source, destination }),
        (v6(), v6()).prop_map(|(source, destination)| Addresses::Inet { source, destination }),
        (path(), path()).prop_map(|(source, destination)| Addresses::Unix { source, destination }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_from_any_pieces(addresses in addresses(), after in any::<[u8; 3]>()) {
        for version in [Version::V1, Version::V2] {
            let mut bytes = Vec::new();
            match version {
                Version::V1 => write_v1(&mut bytes, &addresses),
                Version::V2 => write_v2(&mut bytes, &addresses),
            }
            let length = bytes.len();
            bytes.extend_from_slice(&after);
            for end in 0..length {
                prop_assert_eq!(parse(&bytes[..end]), Parsed::NeedMore);
            }
            let expected = match (&addresses, version) {
                (Addresses::Unix { .. }, Version::V1) => Addresses::Own,
                _ => addresses.clone(),
            };
            let header = Header { version, addresses: expected };
            prop_assert_eq!(parse(&bytes), Parsed::Done { header, consumed: length });
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), command: u8, family: u8) {
        let _ = parse(&bytes);
        let _ = parse(&v2(command, family, &bytes));
        let _ = parse(&[b"PROXY TCP6 ", &bytes[..]].concat());
        if let Parsed::Done { consumed, .. } = parse(&v2(0x21, 0x11, &bytes)) {
            prop_assert_eq!(consumed, 16 + bytes.len());
        }
    }
}
