//! What may be sent again, and the copy that it is sent from.
//!
//! One rule for HTTP/1 and HTTP/2. A request of which nothing was written, or of which the peer says that it did not look at it (`REFUSED_STREAM`, a
//! stream above GOAWAY's last one: RFC 9113 section 8.7), goes out again whatever its method. One that was written on a connection which was
//! used before, and closed without a byte of an answer, goes out again if it is idempotent (RFC 9112 section 9.3.1): a keep-alive connection
//! may close at any moment. What nobody looked at and has no body may do so a few times over HTTP/2, all else once, and only with a body that is empty or still copied as a whole. Any other replay is the retry policy's.

use filter_api::{Body, Replay};
use http::Method;

/// Bytes of a body that are kept so that it can be sent again.
const KEPT: usize = 64 * 1024;

/// The copy of one request. Hands itself out once.
#[derive(Debug, Default)]
pub(super) struct Copies {
    head: Option<http::Request<()>>,
    body: Option<Replay>,
    used: bool,
}

impl Copies {
    /// Makes a copy, unless there was one that is used up. The body of the message feeds the copy from now on.
    pub(super) fn keep(&mut self, message: &mut http::Request<Body>) {
        if self.used {
            return;
        }
        // Built in its place: a head is moved as a whole into every hand that it passes through.
        let head = self.head.insert(http::Request::default());
        head.method_mut().clone_from(message.method());
        head.uri_mut().clone_from(message.uri());
        *head.version_mut() = message.version();
        head.headers_mut().clone_from(message.headers());
        head.extensions_mut().clone_from(message.extensions());
        self.keep_body(message.body_mut());
    }

    /// Makes a copy of the body while it is read.
    pub(super) fn keep_body(&mut self, body: &mut Body) {
        if self.used || self.body.is_some() || body.is_empty() {
            return;
        }
        let (fed, replay) = std::mem::take(body).replayable(KEPT);
        *body = fed;
        self.body = Some(replay);
    }

    /// The request once more; `None` when it was not copied, or handed out before.
    pub(super) fn take(&mut self) -> Option<http::Request<Body>> {
        let (head, ()) = self.head.take()?.into_parts();
        Some(http::Request::from_parts(head, self.take_body()?))
    }

    /// The body once more; `None` when it has outgrown its copy, or was handed out before. To be asked only of a body that was kept.
    pub(super) fn take_body(&mut self) -> Option<Body> {
        if std::mem::replace(&mut self.used, true) {
            return None;
        }
        match &self.body {
            Some(replay) => replay.again(),
            None => Some(Body::empty()),
        }
    }
}

/// RFC 9110 section 9.2.2. Of methods that we do not know nothing is promised.
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn text(body: Body) -> String {
        String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_copy_is_handed_out_once() {
        let mut copies = Copies::default();
        let mut message = http::Request::put("/x").header("a", "b").body(Body::from("hello")).unwrap();
        copies.keep(&mut message);
        assert_eq!(text(message.into_body()).await, "hello");
        let mut again = copies.take().unwrap();
        assert_eq!((again.method(), again.uri().path()), (&Method::PUT, "/x"));
        assert_eq!(again.headers()["a"], "b");
        copies.keep(&mut again);
        assert_eq!(text(again.into_body()).await, "hello");
        assert!(copies.take().is_none());
    }

    #[tokio::test]
    async fn a_body_that_outgrew_its_copy_is_not_sent_again() {
        for (size, whole) in [(KEPT, true), (KEPT + 1, false)] {
            let mut copies = Copies::default();
            let mut message = http::Request::put("/x").body(Body::from("x".repeat(size))).unwrap();
            copies.keep(&mut message);
            assert_eq!(text(message.into_body()).await.len(), size);
            assert_eq!(copies.take().is_some(), whole, "{size}");
        }
    }

    #[tokio::test]
    async fn a_body_that_is_being_sent_again_outlives_its_copy() {
        let mut copies = Copies::default();
        let mut message = http::Request::put("/x").body(Body::from("x".repeat(5000))).unwrap();
        copies.keep(&mut message);
        text(message.into_body()).await;
        let again = copies.take().unwrap();
        drop(copies);
        assert_eq!(text(again.into_body()).await.len(), 5000);
    }

    #[test]
    fn nothing_is_promised_of_post_patch_connect_and_unknown_methods() {
        for method in ["POST", "PATCH", "CONNECT", "QUERY"] {
            assert!(!is_idempotent(&method.parse().unwrap()), "{method}");
        }
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
            assert!(is_idempotent(&method.parse().unwrap()), "{method}");
        }
    }
}
