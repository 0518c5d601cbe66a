//! Which requests go out again when their connection goes away, and which never do.

use crate::support::frames::{DATA, END_STREAM, Frame, Frames, HEADERS, NO_ERROR, REFUSED_STREAM};
use crate::support::objects::service;
use crate::support::{Client1, Proxy, Reply, Upstream, full, request};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What a server does with the next request, once it has read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Answer,
    Refuse,
    /// GOAWAY with this last stream, then the end of the connection.
    GoAway(u32),
    Close,
}
use Act::{Answer, Close, GoAway, Refuse};

/// The bodies of the requests that a server has read, each with the number of its connection.
type Seen = Arc<Mutex<Vec<(u64, usize)>>>;

/// An HTTP/2 server that does as it is told, and answers when it is told nothing more.
async fn http2(acts: &[Act]) -> (Upstream, Seen) {
    let acts = Arc::new(Mutex::new(acts.iter().copied().collect::<VecDeque<_>>()));
    let log = Seen::default();
    let requests = log.clone();
    let up = Upstream::tcp(move |seen, stream| {
        let (acts, requests) = (acts.clone(), requests.clone());
        let connection = seen.begin_bytes() as u64 + 1;
        async move {
            let mut frames = Frames::accept(stream, &[]).await?;
            let mut length = 0;
            loop {
                let frame = frames.next().await?;
                match frame.kind {
                    DATA => {
                        length += frame.payload.len();
                        let more = u32::try_from(frame.payload.len()).unwrap().to_be_bytes();
                        if !frame.payload.is_empty() {
                            frames.send(&Frame::new(8, 0, 0, more)).await?;
                            frames.send(&Frame::new(8, 0, frame.stream, more)).await?;
                        }
                    }
                    HEADERS => length = 0,
                    _ => continue,
                }
                if frame.flags & END_STREAM == 0 {
                    continue;
                }
                requests.lock().unwrap().push((connection, length));
                let act = acts.lock().unwrap().pop_front().unwrap_or(Answer);
                match act {
                    Answer => frames.send(&Frame::ok(frame.stream, END_STREAM)).await?,
                    Refuse => frames.send(&Frame::reset(frame.stream, REFUSED_STREAM)).await?,
                    GoAway(last) => return frames.send(&Frame::go_away(last, NO_ERROR)).await,
                    Close => return Ok(()),
                }
            }
        }
    })
    .await;
    (up, log)
}

/// The same for HTTP/1, which knows no refusal.
async fn http1(acts: &[Act]) -> (Upstream, Seen) {
    let acts = Arc::new(Mutex::new(acts.iter().copied().collect::<VecDeque<_>>()));
    let log = Seen::default();
    let requests = log.clone();
    let up = Upstream::tcp(move |seen, mut stream| {
        let (acts, requests) = (acts.clone(), requests.clone());
        let connection = seen.begin_bytes() as u64 + 1;
        async move {
            let mut all = Vec::new();
            loop {
                let mut chunk = [0; 4096];
                let read = stream.read(&mut chunk).await?;
                if read == 0 {
                    return Ok(());
                }
                all.extend(&chunk[..read]);
                let text = String::from_utf8_lossy(&all).to_ascii_lowercase();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head
                    .split_once("content-length: ")
                    .map_or(0, |(_, rest)| rest.lines().next().unwrap().trim().parse::<usize>().unwrap());
                if body.len() < length {
                    continue;
                }
                all.clear();
                requests.lock().unwrap().push((connection, length));
                let act = acts.lock().unwrap().pop_front().unwrap_or(Answer);
                if act != Answer {
                    return Ok(());
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await?;
            }
        }
    })
    .await;
    (up, log)
}

/// One request after the other; the last one's reply, and what the server has read besides what it answered first.
async fn after_an_answer(
    protocol: &str,
    method: &str,
    body: usize,
    acts: &[Act],
) -> (Reply, Vec<(u64, usize)>) {
    let mut all = vec![Answer];
    all.extend(acts);
    let (up, seen) = if protocol == "HTTP2" { http2(&all).await } else { http1(&all).await };
    let proxy = Proxy::start(&service("up.shop", protocol, &[up.address])).await;
    let mut client = Client1::connect(proxy.outbound()).await;
    assert_eq!(client.exchange(crate::support::get("up.shop", "/first")).await.status, 200);
    let message = request(method, "up.shop", "/", &[], full(vec![b'x'; body]));
    let reply = client.exchange(message).await;
    let seen = seen.lock().unwrap()[1..].to_vec();
    (reply, seen)
}

#[tokio::test]
async fn an_http_2_request_that_was_never_looked_at_goes_out_again_whatever_its_method() {
    for method in ["GET", "POST", "PATCH"] {
        for body in [0, 5, 60_000] {
            for (act, second) in [(GoAway(1), 2), (Refuse, 1)] {
                let (reply, seen) = after_an_answer("HTTP2", method, body, &[act]).await;
                let what = format!("{method} {body} {act:?}");
                assert_eq!(reply.status, 200, "{what}: {}", reply.text());
                assert_eq!(seen, [(1, body), (second, body)], "{what}");
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_is_not_kept_as_a_whole_does_not_go_out_again() {
    for act in [GoAway(1), Refuse] {
        let (reply, seen) = after_an_answer("HTTP2", "POST", 100_000, &[act]).await;
        assert_eq!(reply.status, 503, "{act:?}: {}", reply.text());
        assert_eq!(seen, [(1, 100_000)], "{act:?}");
    }
}

#[tokio::test]
async fn replays_are_bounded() {
    // Five times where nobody looked at it, for several connections may be going away at once.
    let refused = [Refuse; 8];
    let mut away = [GoAway(0); 8];
    away[0] = GoAway(1);
    for acts in [refused, away] {
        let (reply, seen) = after_an_answer("HTTP2", "GET", 0, &acts).await;
        assert_eq!((reply.status.as_u16(), seen.len()), (503, 5), "{acts:?}");
    }
    // Once where it has a body, or may have been looked at.
    let (reply, seen) = after_an_answer("HTTP2", "POST", 5, &[Refuse, Refuse, Refuse]).await;
    assert_eq!((reply.status.as_u16(), seen.len()), (503, 2));
    for protocol in ["HTTP", "HTTP2"] {
        let (reply, seen) = after_an_answer(protocol, "GET", 0, &[Close, Close, Close]).await;
        assert_eq!((reply.status.as_u16(), seen.len()), (503, 2), "{protocol}");
    }
}

#[tokio::test]
async fn what_a_kept_connection_lost_goes_out_again_only_if_it_is_idempotent() {
    for protocol in ["HTTP", "HTTP2"] {
        for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
            for body in [0, 5] {
                let (reply, seen) = after_an_answer(protocol, method, body, &[Close]).await;
                assert_eq!(reply.status, 200, "{protocol} {method} {body}: {}", reply.text());
                assert_eq!(seen, [(1, body), (2, body)], "{protocol} {method} {body}");
            }
        }
        for method in ["POST", "PATCH"] {
            let (reply, seen) = after_an_answer(protocol, method, 5, &[Close]).await;
            assert_eq!((reply.status.as_u16(), seen), (503, vec![(1, 5)]), "{protocol} {method}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_go_away_covers_counts_as_looked_at() {
    let (reply, seen) = after_an_answer("HTTP2", "POST", 5, &[GoAway(3)]).await;
    assert_eq!((reply.status.as_u16(), seen), (503, vec![(1, 5)]));
    let (reply, seen) = after_an_answer("HTTP2", "PUT", 5, &[GoAway(3)]).await;
    assert_eq!((reply.status.as_u16(), seen), (200, vec![(1, 5), (2, 5)]));
}

#[tokio::test]
async fn what_a_new_connection_loses_does_not_go_out_again() {
    for protocol in ["HTTP", "HTTP2"] {
        let (up, seen) = if protocol == "HTTP2" { http2(&[Close]).await } else { http1(&[Close]).await };
        let proxy = Proxy::start(&service("up.shop", protocol, &[up.address])).await;
        let mut client = Client1::connect(proxy.outbound()).await;
        let reply = client.exchange(crate::support::get("up.shop", "/")).await;
        assert_eq!((reply.status.as_u16(), seen.lock().unwrap().len()), (503, 1), "{protocol}");
    }
}
