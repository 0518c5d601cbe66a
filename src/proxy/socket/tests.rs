use std::os::unix::net::UnixStream;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn accept_on(listener: std::net::TcpListener) -> tokio::net::TcpListener {
    tokio::net::TcpListener::from_std(listener).unwrap()
}

#[tokio::test]
async fn a_connection_carries_bytes_and_the_options_asked_for() {
    let keepalive = Keepalive { time: Duration::from_secs(77), interval: Duration::from_secs(7), probes: 3 };
    let listener =
        listen(LOOPBACK, &ListenOptions { keepalive: Some(keepalive), ..Default::default() }).unwrap();
    let address = listener.local_addr().unwrap();
    let listener = accept_on(listener);
    let options = ConnectOptions {
        source: Some(application_source(address.ip())),
        keepalive: Some(keepalive),
        ..Default::default()
    };
    let (client, accepted) = tokio::join!(connect(address, &options), listener.accept());
    let (mut client, (mut server, peer)) = (client.unwrap(), accepted.unwrap());
    assert_eq!(peer.ip().to_string(), "127.0.0.6");
    for stream in [&client, &server] {
        assert!(stream.nodelay().unwrap());
        let socket = SockRef::from(stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), keepalive.time);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), keepalive.interval);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), keepalive.probes);
    }
    client.write_all(b"ping").await.unwrap();
    let mut read = [0; 4];
    server.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"ping");
    // It came here on its own: there is no other destination to tell.
    assert!(original_dst(&server).is_err());
}

#[test]
fn workers_share_a_port_only_when_they_may() {
    let first = listen(LOOPBACK, &ListenOptions::default()).unwrap();
    let address = first.local_addr().unwrap();
    let second = listen(address, &ListenOptions::default()).unwrap();
    assert_eq!(second.local_addr().unwrap(), address);
    let alone = listen(address, &ListenOptions { reuse_port: false, ..Default::default() });
    assert_eq!(alone.unwrap_err().kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn one_port_serves_both_families_on_two_sockets() {
    let options = ListenOptions { reuse_port: false, ..Default::default() };
    let any = |ip: IpAddr, port| listen(SocketAddr::new(ip, port), &options);
    // Another process may hold the port that we happen to get; hardly five times in a row.
    let shared = (0..5).any(|_| {
        // A machine without IPv6 has nothing to show here.
        let Ok(six) = any(Ipv6Addr::UNSPECIFIED.into(), 0) else { return true };
        SockRef::from(&six).only_v6().unwrap()
            && any(Ipv4Addr::UNSPECIFIED.into(), six.local_addr().unwrap().port()).is_ok()
    });
    assert!(shared);
}

#[tokio::test]
async fn a_source_of_the_other_family_is_refused() {
    let options =
        ConnectOptions { source: Some(application_source(Ipv6Addr::LOCALHOST.into())), ..Default::default() };
    let error = connect(LOOPBACK, &options).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "cannot connect from ::6 to 127.0.0.1: one is IPv4, one IPv6");
}

#[tokio::test]
async fn nobody_listening_is_an_error_at_once() {
    let listener = listen(LOOPBACK, &ListenOptions { reuse_port: false, ..Default::default() }).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = connect(address, &ConnectOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_unix_socket_replaces_a_dead_one_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let first = listen_unix(&path, 8).unwrap();
    UnixStream::connect(&path).unwrap();
    let error = listen_unix(&path, 8).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().ends_with("admin.sock: another process listens there"), "{error}");
    drop(first);
    assert!(path.exists());
    let _second = listen_unix(&path, 8).unwrap();
    UnixStream::connect(&path).unwrap();

    let file = folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(listen_unix(&file, 8).unwrap_err().to_string().contains("no socket"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}
