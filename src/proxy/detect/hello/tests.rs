use proptest::prelude::*;

use super::*;

fn short(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap().to_be_bytes()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &short(content.len()), content].concat()
}

fn sni(name: &[u8]) -> Vec<u8> {
    let entry = [&[0][..], &short(name.len()), name].concat();
    extension(SERVER_NAME, &[&short(entry.len())[..], &entry].concat())
}

fn alpn(protocols: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> =
        protocols.iter().flat_map(|one| [&[u8::try_from(one.len()).unwrap()][..], one].concat()).collect();
    extension(ALPN, &[&short(list.len())[..], &list].concat())
}

/// A handshake message with these extensions, without its records.
fn handshake(extensions: &[Vec<u8>]) -> Vec<u8> {
    let extensions = extensions.concat();
    let body =
        [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], &short(extensions.len()), &extensions]
            .concat();
    [&[CLIENT_HELLO, 0][..], &short(body.len()), &body].concat()
}

/// The message in records of at most `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message
        .chunks(size)
        .flat_map(|part| [&[HANDSHAKE, 3, 1][..], &short(part.len()), part].concat())
        .collect()
}

fn hello(extensions: &[Vec<u8>]) -> Hello {
    client_hello(&records(&handshake(extensions), 1 << 14))
}

fn parsed(sni: Option<&str>, alpn: &[&[u8]]) -> Hello {
    Hello::Parsed(ClientHello {
        sni: sni.map(Box::from),
        alpn: alpn.iter().map(|one| Box::from(*one)).collect(),
    })
}

#[test]
fn name_and_protocols_are_found_among_other_extensions() {
    let others =
        [extension(43, &[2, 3, 4]), sni(b"Reviews.Shop."), extension(0x6a6a, &[]), alpn(&[b"istio", b"h2"])];
    assert_eq!(hello(&others), parsed(Some("reviews.shop"), &[b"istio", b"h2"]));
    assert_eq!(hello(&[]), parsed(None, &[]));
    let istio = b"outbound_.80_._.reviews.shop.svc.cluster.local";
    assert_eq!(hello(&[sni(istio)]), parsed(Some(std::str::from_utf8(istio).unwrap()), &[]));
}

#[test]
fn a_hello_without_extensions_is_one() {
    let body = [&[3, 1][..], &[7; 32], &[0], &[0, 2, 0, 5], &[1, 0]].concat();
    let message = [&[CLIENT_HELLO, 0][..], &short(body.len()), &body].concat();
    assert_eq!(client_hello(&records(&message, 100)), parsed(None, &[]));
}

#[test]
fn a_hello_may_come_in_any_pieces() {
    let message = handshake(&[sni(b"a.example"), alpn(&[b"h2"])]);
    for size in [1, 2, 3, 5, 64, message.len()] {
        let bytes = records(&message, size);
        for end in 0..bytes.len() {
            assert_eq!(client_hello(&bytes[..end]), Hello::NeedMore, "{size} {end}");
        }
        assert_eq!(client_hello(&bytes), parsed(Some("a.example"), &[b"h2"]), "{size}");
        let more = [&bytes[..], &[20, 3, 3, 0, 1, 1]].concat();
        assert_eq!(client_hello(&more), parsed(Some("a.example"), &[b"h2"]), "{size}");
    }
}

#[test]
fn an_address_is_no_server_name() {
    assert_eq!(hello(&[sni(b"10.0.0.1")]), parsed(None, &[]));
    assert_eq!(hello(&[sni(b"2001:db8::1")]), parsed(None, &[]));
}

#[test]
fn a_broken_hello_is_refused() {
    for name in [&b""[..], b"a b", b"a\0b", b"a:80", b"[::1]", b"a..b", b"user@a", b"a/b", b"*.a", b"\xff"] {
        assert_eq!(hello(&[sni(name)]), Hello::Invalid, "{name:?}");
    }
    assert_eq!(hello(&[sni(b"a"), sni(b"b")]), Hello::Invalid);
    assert_eq!(hello(&[alpn(&[b"h2"]), alpn(&[b"h2"])]), Hello::Invalid);
    assert_eq!(hello(&[alpn(&[])]), Hello::Invalid);
    assert_eq!(hello(&[alpn(&[b""])]), Hello::Invalid);
    assert_eq!(hello(&[extension(SERVER_NAME, &[0, 3, 1, 0, 0])]), Hello::Invalid);
    assert_eq!(hello(&[extension(SERVER_NAME, &[0, 8, 0, 0, 1, b'a', 0, 0, 1, b'b'])]), Hello::Invalid);
    assert_eq!(hello(&[vec![0, 0, 0, 9]]), Hello::Invalid);
    for bytes in
        [&b"GET / HTTP/1.1"[..], &[22, 2], &[22, 3, 1, 0, 0], &[22, 3, 1, 0x41, 0], &[22, 3, 1, 0, 1, 2]]
    {
        assert_eq!(client_hello(bytes), Hello::Invalid, "{bytes:?}");
    }
}

#[test]
fn a_hello_over_the_limit_is_refused_before_it_is_read() {
    assert_eq!(client_hello(&[22, 3, 1, 0x40, 0, CLIENT_HELLO, 0, 0x40, 1]), Hello::Invalid);
    assert_eq!(client_hello(&[22, 3, 1, 0x40, 0, CLIENT_HELLO, 0, 0x40, 0]), Hello::NeedMore);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), size in 1..80usize) {
        let _ = client_hello(&bytes);
        let _ = client_hello(&records(&bytes, size));
        let _ = hello(&[bytes]);
    }

    #[test]
    fn a_broken_byte_is_never_a_panic(at in 0..400usize, byte: u8, size in 1..200usize) {
        let mut bytes = records(&handshake(&[sni(b"a.example"), alpn(&[b"h2", b"http/1.1"])]), size);
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = client_hello(&bytes);
    }
}
