//! Runs the streams of an HTTP/2 connection so that the worker's clock can end one of them.

use super::Conn;
use crate::proxy::record::Activity;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Runs each stream as a task of its own on its worker.
///
/// hyper asks for a body only while the client's window is open: a client that never opens it would pin stream, body and permits for ever. So
/// a stream that stands still for too long is dropped from outside, which resets it (RST_STREAM, CANCEL), and the connection goes on.
#[derive(Clone, Debug)]
pub(crate) struct StreamExecutor(Rc<Conn>);

pin_project! {
    struct Stream<F> {
        #[pin]
        inner: F,
        conn: Rc<Conn>,
        activity: Option<Rc<Activity>>,
    }
}

impl StreamExecutor {
    pub(crate) fn new(conn: Rc<Conn>) -> Self {
        Self(conn)
    }
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for StreamExecutor {
    fn execute(&self, inner: F) {
        tokio::task::spawn_local(Stream { inner, conn: self.0.clone(), activity: None });
    }
}

impl<F: Future<Output = ()>> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let polled = this.inner.poll(task);
        // Tasks take turns: what an exchange left there during this poll is this stream's own.
        if let Some(activity) = this.conn.take_answering() {
            *this.activity = Some(activity);
        }
        match this.activity {
            _ if polled.is_ready() => Poll::Ready(()),
            Some(activity) if activity.must_end().is_some() => Poll::Ready(()),
            Some(activity) => {
                activity.watch(task);
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }
}
