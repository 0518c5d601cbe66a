//! A request body on its way into an HTTP/2 stream.

use bytes::Bytes;
use filter_api::{Body, Error};
use http_body::Body as _;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, ready};

/// A request body on its way.
type Moving = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// Why there is no response.
pub(super) enum Broken {
    /// The request body broke.
    Body(Error),
    /// The stream or its connection did.
    Stream(h2::Error),
}

/// Moves the request body while it waits for the response; what is left of it afterwards (streaming both ways) goes on by itself.
pub(super) async fn with_body(
    mut response: h2::client::ResponseFuture,
    send: h2::SendStream<Bytes>,
    body: Body,
) -> Result<http::Response<h2::RecvStream>, Broken> {
    let mut moving: Option<Moving> = Some(Box::pin(move_body(body, send)));
    let response = poll_fn(|task| {
        if let Some(future) = &mut moving
            && let Poll::Ready(done) = future.as_mut().poll(task)
        {
            moving = None;
            if let Err(error) = done {
                return Poll::Ready(Err(Broken::Body(error)));
            }
        }
        Pin::new(&mut response).poll(task).map_err(Broken::Stream)
    })
    .await?;
    if let Some(rest) = moving.take() {
        tokio::task::spawn_local(async move {
            // A body that breaks resets its stream, which the response body reports.
            let _ = rest.await;
        });
    }
    Ok(response)
}

/// Sends a body frame by frame, no faster than the peer's flow control allows.
async fn move_body(mut body: Body, mut send: h2::SendStream<Bytes>) -> Result<(), Error> {
    loop {
        let frame = poll_fn(|task| {
            // The peer may lose interest before the body ends.
            if let Poll::Ready(reset) = send.poll_reset(task) {
                return Poll::Ready(Err(reset));
            }
            Poll::Ready(Ok(ready!(Pin::new(&mut body).poll_frame(task))))
        })
        .await;
        match frame {
            Err(_) => return Ok(()),
            Ok(Some(Err(error))) => {
                send.send_reset(h2::Reason::CANCEL);
                return Err(error);
            }
            Ok(None) => {
                // Fails only when the stream is gone already.
                let _ = send.send_data(Bytes::new(), true);
                return Ok(());
            }
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    let end = body.is_end_stream();
                    if !send_data(&mut send, data, end).await || end {
                        return Ok(());
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        let _ = send.send_trailers(trailers);
                    }
                    return Ok(());
                }
            },
        }
    }
}

/// Sends one chunk as the window allows. False when the stream is gone.
async fn send_data(send: &mut h2::SendStream<Bytes>, mut data: Bytes, end: bool) -> bool {
    if data.is_empty() {
        return !end || send.send_data(data, true).is_ok();
    }
    while !data.is_empty() {
        send.reserve_capacity(data.len());
        let mut room = send.capacity();
        while room == 0 {
            match poll_fn(|task| send.poll_capacity(task)).await {
                Some(Ok(capacity)) => room = capacity,
                Some(Err(_)) | None => return false,
            }
        }
        let chunk = data.split_to(room.min(data.len()));
        if send.send_data(chunk, end && data.is_empty()).is_err() {
            return false;
        }
    }
    true
}
