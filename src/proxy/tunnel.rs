//! After an upgrade or a CONNECT: bytes both ways, under the record and the permits of the exchange that opened it.

use super::record::{Ending, Recorded, Recorder};
use super::tcp::{self, Flow};
use super::worker::Worker;
use crate::mesh::Direction;
use filter_api::{End, Outcome, Reason};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::rc::Rc;
use std::time::Duration;

/// Starts the tunnel that `response` opens. Nothing the client sends goes upstream before: hyper hands its end over only once the response head
/// is written.
pub(super) fn start(
    worker: &Rc<Worker>,
    direction: Direction,
    downstream: OnUpgrade,
    response: &mut http::Response<Recorded>,
) {
    let Some(upstream) = response.extensions_mut().remove::<OnUpgrade>() else { return };
    let (recorder, observers) = response.body_mut().take_for_tunnel();
    let tunnel = worker.open_tunnel(direction);
    tokio::task::spawn_local(async move {
        let (mut recorder, observers) = (recorder, observers);
        let mut bytes = 0;
        let _tunnel = tunnel.clone();
        let result = match tokio::join!(downstream, upstream) {
            (Ok(downstream), Ok(upstream)) => {
                let (downstream, upstream) = (TokioIo::new(downstream), TokioIo::new(upstream));
                let idle = recorder.as_ref().map_or(Duration::ZERO, Recorder::connection_idle_timeout);
                let flow = Flow::new(idle);
                let ended = tcp::copy_both(downstream, upstream, &flow, &tunnel).await;
                bytes = flow.received() + flow.sent();
                if let Some(recorder) = &mut recorder {
                    recorder.tunnelled(flow.received(), flow.sent());
                }
                ended
            }
            (Err(_), _) => Err(Reason::DownstreamClosed),
            (_, Err(_)) => Err(Reason::UpstreamClosed),
        };
        let (outcome, ending) = match result {
            Ok(()) => (Outcome::Complete, Ending::Complete(None)),
            Err(reason) => (Outcome::Reset(reason), Ending::Broken(reason)),
        };
        for observer in observers {
            observer.on_end(&End { outcome, bytes, trailers: None });
        }
        if let Some(recorder) = &mut recorder {
            recorder.finish(ending);
        }
    });
}
