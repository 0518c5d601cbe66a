use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::future::poll_fn;
use tokio::io::AsyncWriteExt;

/// A socket that takes as many bytes per call as it is told, and nothing when it is told zero.
#[derive(Debug, Default)]
struct Socket {
    takes: VecDeque<usize>,
    got: Vec<u8>,
    calls: usize,
    broken: bool,
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, task: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(task, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.calls += 1;
        if self.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let takes = self.takes.pop_front().unwrap_or(usize::MAX);
        if takes == 0 {
            task.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = self.got.len();
        for buf in bufs {
            let room = takes - (self.got.len() - before);
            let taken = buf.len().min(room);
            self.got.extend_from_slice(&buf[..taken]);
        }
        Poll::Ready(Ok(self.got.len() - before))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

type Shared = Rc<RefCell<Outbox<Socket>>>;

fn start(takes: &[usize]) -> (Collected<Socket>, Sender<Socket>, Shared) {
    let socket = Socket { takes: takes.iter().copied().collect(), ..Socket::default() };
    let (collected, sender) = collect(socket);
    let shared = collected.0.clone();
    (collected, sender, shared)
}

#[tokio::test]
async fn frames_flushed_one_by_one_leave_in_one_write() {
    let (mut codec, sender, shared) = start(&[]);
    sender
        .drive(async move {
            for frame in [b"one", b"two", b"six"] {
                codec.write_all(frame).await.unwrap();
                codec.flush().await.unwrap();
            }
        })
        .await;
    let outbox = shared.borrow();
    assert_eq!((outbox.stream.got.as_slice(), outbox.stream.calls), (&b"onetwosix"[..], 1));
}

#[tokio::test]
async fn a_socket_that_takes_no_more_makes_the_codec_wait() {
    let (mut codec, sender, shared) = start(&[2, 0, 0, 0]);
    let waited = sender
        .drive(async move {
            codec.write_all(b"first").await.unwrap();
            // The poll ends here, and what was collected meets a full socket.
            tokio::task::yield_now().await;
            let waits = poll_fn(|task| Poll::Ready(Pin::new(&mut codec).poll_flush(task).is_pending())).await;
            codec.flush().await.unwrap();
            codec.write_all(b"second").await.unwrap();
            codec.shutdown().await.unwrap();
            waits
        })
        .await;
    assert!(waited);
    let outbox = shared.borrow();
    assert_eq!(outbox.stream.got, b"firstsecond");
    assert!(!outbox.full && outbox.pending.is_empty());
}

#[tokio::test]
async fn the_codec_hears_of_a_broken_socket() {
    let (mut codec, sender, shared) = start(&[]);
    shared.borrow_mut().stream.broken = true;
    let error = sender
        .drive(async move {
            codec.write_all(b"lost").await.unwrap();
            tokio::task::yield_now().await;
            codec.flush().await.unwrap_err()
        })
        .await;
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_connection_at_rest_keeps_no_buffer() {
    let (mut codec, sender, shared) = start(&[]);
    sender.drive(async move { codec.write_all(b"bytes").await.unwrap() }).await;
    assert_eq!(shared.borrow().pending.capacity(), 0);
}

proptest! {
    #[test]
    fn every_byte_arrives_once_and_in_order(
        writes in prop::collection::vec((0_usize..50_000, any::<bool>(), any::<bool>()), 1..12),
        takes in prop::collection::vec(prop_oneof![Just(0_usize), 1_usize..60_000], 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let total: usize = writes.iter().map(|(length, ..)| length).sum();
        let bytes: Vec<u8> = (0..total).map(|at| (at % 251) as u8).collect();
        let (mut codec, sender, shared) = start(&takes);
        let sent = bytes.clone();
        runtime.block_on(sender.drive(async move {
            let mut rest = sent.as_slice();
            for (length, flush, rests) in writes {
                let (now, later) = rest.split_at(length);
                rest = later;
                codec.write_all(now).await.unwrap();
                if flush {
                    codec.flush().await.unwrap();
                }
                if rests {
                    tokio::task::yield_now().await;
                }
                let outbox = codec.0.borrow();
                assert!(outbox.pending.len() <= MAX_COLLECTED);
            }
            codec.shutdown().await.unwrap();
        }));
        prop_assert_eq!(&shared.borrow().stream.got, &bytes);
    }
}
