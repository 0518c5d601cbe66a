//! What a server's closes teach, and what they do not.

use crate::support::objects::service;
use crate::support::{Client1, Proxy, Upstream, get};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

/// A keep-alive server that closes all its connections when told.
async fn restartable() -> (Upstream, Arc<Notify>) {
    let restart = Arc::new(Notify::new());
    let told = restart.clone();
    let up = Upstream::tcp(move |_, mut stream| {
        let told = told.clone();
        async move {
            let mut chunk = [0; 4096];
            loop {
                tokio::select! {
                    () = told.notified() => return Ok(()),
                    read = stream.read(&mut chunk) => {
                        if read? == 0 {
                            return Ok(());
                        }
                        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await?;
                    }
                }
            }
        }
    })
    .await;
    (up, restart)
}

#[tokio::test]
async fn one_restart_of_a_server_does_not_end_keep_alive_to_it() {
    let (up, restart) = restartable().await;
    let proxy = Proxy::start(&service("up.shop", "HTTP", &[up.address])).await;
    let mut client = Client1::connect(proxy.outbound()).await;
    assert_eq!(client.exchange(get("up.shop", "/")).await.status, 200);
    tokio::time::sleep(Duration::from_millis(200)).await;
    restart.notify_waiters();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(client.exchange(get("up.shop", "/")).await.status, 200);
    }
    assert_eq!(up.connections(), 2, "one before and one after");
}

#[tokio::test]
async fn restarts_after_which_connections_last_longer_are_forgotten() {
    let (up, restart) = restartable().await;
    let proxy = Proxy::start(&service("up.shop", "HTTP", &[up.address])).await;
    let mut client = Client1::connect(proxy.outbound()).await;
    // Each after the same short rest, as if the server closed what is idle; but between them a connection rests longer and lives.
    for round in 1..=3 {
        for rest in [0, 400] {
            tokio::time::sleep(Duration::from_millis(rest)).await;
            assert_eq!(client.exchange(get("up.shop", "/")).await.status, 200);
        }
        assert_eq!(up.connections(), round);
        tokio::time::sleep(Duration::from_millis(200)).await;
        restart.notify_waiters();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
