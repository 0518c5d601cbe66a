//! Getting an HTTP/1 connection when none is idle: one that comes back, or a new one.
//!
//! A connection is opened by a task of its own and belongs to whoever has waited longest when it is there. A request that gives up leaves the
//! connection that was opened for it to the next one, so that requests which come and are cancelled cost the server no connection each.

use super::MAX_BUFFER;
use crate::identity::Within;
use crate::proxy::cluster::Picked;
use crate::proxy::portions::Portions;
use crate::proxy::upstream::connect::{Way, connect};
use crate::proxy::upstream::pool::{EndpointPool, H1Connection, Lease, Open, PENDING_TIMEOUT, Rest};
use crate::proxy::worker::Worker;
use crate::snapshot::Cluster;
use filter_api::{ConnectionFacts, Error, Reason};
use hyper::client::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use tokio::time::{Instant, sleep};

/// A connection to what was picked.
pub(super) async fn connection(
    worker: &Rc<Worker>,
    pool: &Rc<EndpointPool>,
    picked: &Picked,
    downstream: &Arc<ConnectionFacts>,
) -> Result<Lease, Error> {
    let cluster = &picked.cluster;
    let mut wanted = pool.queue_up();
    let mut pending = None;
    let mut late = pin!(sleep(PENDING_TIMEOUT));
    loop {
        // Asked for before looking whether there is one, so that none is missed.
        let mut freed = pin!(cluster.state.connection_freed());
        freed.as_mut().enable();
        if pool.wants_another() {
            match pool.may_open(cluster) {
                Some(open) => Opener::new(worker, pool, picked, downstream).start(open),
                None if pending.is_none() => {
                    let permit = EndpointPool::may_wait(cluster);
                    if permit.is_err() {
                        worker.count_overflow(cluster);
                    }
                    pending = Some(permit?);
                }
                None => {}
            }
        }
        tokio::select! {
            biased;
            got = wanted.served() => return got,
            () = freed, if pending.is_some() => {}
            () = &mut late => {
                // What is being opened ends by itself, one way or the other.
                if pool.wants_another() {
                    worker.count_overflow(cluster);
                    return Err(EndpointPool::waited_too_long(cluster));
                }
                late.as_mut().reset(Instant::now() + PENDING_TIMEOUT);
            }
        }
    }
}

/// Opens connections for those who wait.
struct Opener {
    worker: Rc<Worker>,
    pool: Rc<EndpointPool>,
    way: Way,
    cluster: Arc<Cluster>,
    downstream: Arc<ConnectionFacts>,
}

impl Opener {
    fn new(
        worker: &Rc<Worker>,
        pool: &Rc<EndpointPool>,
        picked: &Picked,
        downstream: &Arc<ConnectionFacts>,
    ) -> Self {
        Self {
            worker: worker.clone(),
            pool: pool.clone(),
            way: Way::to(picked),
            cluster: picked.cluster.clone(),
            downstream: downstream.clone(),
        }
    }

    fn start(self, open: Open) {
        let mut opening = Some((self.pool.begin_opening(), open));
        tokio::task::spawn_local(async move {
            while let Some((opening_now, open)) = opening.take() {
                let result = self.open(open).await;
                drop(opening_now);
                match result {
                    // Dropped, it goes to who has waited longest, or to the idle ones.
                    Ok(connection) => drop(Lease::new(connection, &self.cluster, &self.pool)),
                    Err(error) => {
                        self.pool.was_away();
                        self.pool.fail_one(error);
                    }
                }
                // It may have gone to a request that was waiting for the limit, and not to the one it was opened for.
                if self.pool.wants_another()
                    && let Some(open) = self.pool.may_open(&self.cluster)
                {
                    opening = Some((self.pool.begin_opening(), open));
                }
            }
        });
    }

    async fn open(&self, open: Open) -> Result<H1Connection, Error> {
        let stream = connect(
            self.worker.keyring(),
            &self.way,
            Within::Http1,
            &self.cluster.mesh,
            Some(&self.downstream),
        )
        .await?;
        let local = stream.local_address();
        let handshake =
            Builder::new().max_buf_size(MAX_BUFFER).handshake(TokioIo::new(Portions::of(stream))).await;
        let failed = |reason| move |error| Error::new(reason).retry_safe().source(error);
        let (mut sender, connection) = handshake.map_err(failed(Reason::ConnectFailure))?;
        self.worker.count_upstream_connection(&self.cluster);
        let rest = Rc::<Rest>::default();
        tokio::task::spawn_local({
            let (rest, pool) = (rest.clone(), Rc::downgrade(&self.pool));
            async move {
                // How it ends is reported to whoever is using it.
                let _ = connection.with_upgrades().await;
                let now = Instant::now();
                if let (Some(idle), Some(pool)) = (rest.so_far(now), pool.upgrade()) {
                    pool.closed_idle(idle, now);
                }
            }
        });
        // Its own task has to come round before it takes a request.
        sender.ready().await.map_err(failed(Reason::UpstreamClosed))?;
        Ok(H1Connection::new(sender, local, rest, open))
    }
}
