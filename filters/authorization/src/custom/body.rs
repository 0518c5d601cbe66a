//! The beginning of a body, read for a provider; the same bytes then go upstream.

use bytes::{Bytes, BytesMut};
use filter_api::{Body, Error};
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

/// What was read of a body.
#[derive(Debug)]
pub(crate) struct Beginning {
    /// As many bytes as were asked for, or all there are.
    pub(crate) bytes: Bytes,
    /// There are more.
    pub(crate) partial: bool,
}

/// Reads the first `most` bytes of a body, and as much beyond them as tells whether there are more. The body that comes back has all of it.
///
/// # Errors
///
/// As the body breaks.
pub(crate) async fn begin(mut body: Body, most: usize) -> Result<(Beginning, Body), Error> {
    // Copied together: small chunks would each pin a read buffer.
    let mut begun = BytesMut::new();
    let (mut beyond, mut trailers) = (None, None);
    while beyond.is_none() {
        let Some(frame) = poll_fn(|task| Pin::new(&mut body).poll_frame(task)).await else { break };
        match frame?.into_data() {
            Ok(mut data) => {
                begun.extend_from_slice(&data.split_to(data.len().min(most - begun.len())));
                beyond = Some(data).filter(|data| !data.is_empty());
            }
            Err(frame) => trailers = Some(frame),
        }
    }
    let (bytes, partial) = (begun.freeze(), beyond.is_some());
    let data = [Some(bytes.clone()).filter(|bytes| !bytes.is_empty()), beyond];
    let frames: VecDeque<_> = data.into_iter().flatten().map(Frame::data).chain(trailers).collect();
    let whole = if frames.is_empty() { Body::empty() } else { Body::boxed(Begun { frames, rest: body }) };
    Ok((Beginning { bytes, partial }, whole))
}

/// Frames that were read already, and the rest.
struct Begun {
    frames: VecDeque<Frame<Bytes>>,
    rest: Body,
}

impl HttpBody for Begun {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.rest).poll_frame(task),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let begun: usize = self.frames.iter().filter_map(Frame::data_ref).map(Bytes::len).sum();
        let (begun, rest) = (begun as u64, self.rest.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(begun));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(begun)) {
            hint.set_upper(upper);
        }
        hint
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use http::HeaderMap;

    /// Chunks, then trailers.
    struct Chunks(Vec<&'static str>, Option<HeaderMap>);

    impl HttpBody for Chunks {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            if self.0.is_empty() {
                return Poll::Ready(self.1.take().map(|trailers| Ok(Frame::trailers(trailers))));
            }
            let chunk = self.0.remove(0);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(chunk.as_bytes())))))
        }
    }

    async fn drain(mut body: Body) -> (String, Option<HeaderMap>) {
        let (mut text, mut trailers) = (String::new(), None);
        while let Some(frame) = poll_fn(|task| Pin::new(&mut body).poll_frame(task)).await {
            match frame.unwrap().into_data() {
                Ok(data) => text.push_str(std::str::from_utf8(&data).unwrap()),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        assert!(body.is_end_stream());
        (text, trailers)
    }

    #[tokio::test]
    async fn what_was_read_is_forwarded_with_the_rest_and_the_trailers() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        for (most, seen, partial) in [
            (0, "", true),
            (3, "hel", true),
            (9, "hello the", true),
            (11, "hello there", false),
            (99, "hello there", false),
        ] {
            let body = Body::boxed(Chunks(vec!["hel", "lo the", "re"], Some(trailers.clone())));
            let (beginning, whole) = begin(body, most).await.unwrap();
            assert_eq!((&*beginning.bytes, beginning.partial), (seen.as_bytes(), partial), "{most}");
            assert_eq!(drain(whole).await, ("hello there".to_owned(), Some(trailers.clone())), "{most}");
        }
    }

    #[tokio::test]
    async fn the_length_stays_known() {
        let (_, whole) = begin(Body::from("hello"), 3).await.unwrap();
        assert_eq!(whole.size_hint().exact(), Some(5));
        let (beginning, whole) = begin(Body::empty(), 3).await.unwrap();
        assert!(beginning.bytes.is_empty() && !beginning.partial && whole.is_empty());
    }
}
