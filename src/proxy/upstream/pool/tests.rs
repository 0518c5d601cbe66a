use super::*;
use filter_api::Protocol;

fn client(port: u16) -> Arc<ConnectionFacts> {
    let local = SocketAddr::from(([127, 0, 0, 1], 80));
    let remote = SocketAddr::from(([127, 0, 0, 1], port));
    Arc::new(ConnectionFacts {
        listener: "outbound".into(),
        remote,
        direct_remote: remote,
        local,
        original_destination: None,
        protocol: Protocol::Http1,
        server_name: None,
        tls: None,
    })
}

#[test]
fn a_proxy_protocol_pool_is_that_of_one_client_and_one_endpoint() {
    let pools = Pools::default();
    let (one, other) = (client(1), client(2));
    let pool = |client, place, proxy_protocol| pools.of(7, place, proxy_protocol, client);
    let first = pool(&one, Place::Endpoint(1), true);
    assert!(Rc::ptr_eq(&first, &pool(&one, Place::Endpoint(1), true)));
    let elsewhere = Place::Address(([127, 0, 0, 1], 1).into());
    for different in [
        pool(&other, Place::Endpoint(1), true),
        pool(&one, Place::Endpoint(2), true),
        pool(&one, elsewhere, true),
        pool(&one, Place::Endpoint(1), false),
        pools.of(8, Place::Endpoint(1), true, &one),
    ] {
        assert!(!Rc::ptr_eq(&first, &different));
    }
    assert!(Rc::ptr_eq(&pool(&one, Place::Endpoint(1), false), &pool(&other, Place::Endpoint(1), false)));
}

#[tokio::test(start_paused = true)]
async fn a_proxy_protocol_pool_goes_with_its_client() {
    let pools = Pools::default();
    let (gone, stays) = (client(1), client(2));
    let held = pools.of(7, Place::Endpoint(1), true, &stays);
    pools.of(7, Place::Endpoint(1), true, &gone);
    drop(gone);
    pools.expire(Instant::now(), |_| None);
    let clients = pools.clients.borrow();
    assert_eq!(clients.len(), 1);
    assert!(clients.values().all(|client| Rc::ptr_eq(&client.pool, &held)));
}

#[test]
fn clients_beyond_the_bound_get_a_pool_for_one_request() {
    let pools = Pools::default();
    let clients: Vec<_> = (0..=MAX_ADDRESSES).map(|port| client(u16::try_from(port).unwrap())).collect();
    for client in &clients {
        pools.of(7, Place::Endpoint(1), true, client);
    }
    assert_eq!(pools.clients.borrow().len(), MAX_ADDRESSES);
    let last = &clients[MAX_ADDRESSES];
    let [first, second] = [(); 2].map(|()| pools.of(7, Place::Endpoint(1), true, last));
    assert!(!Rc::ptr_eq(&first, &second));
}

#[tokio::test]
async fn a_request_that_gives_up_leaves_its_place_in_the_queue() {
    let pool = Rc::<EndpointPool>::default();
    assert!(!pool.wants_another());
    let first = pool.queue_up();
    assert!(pool.wants_another());
    let opening = pool.begin_opening();
    assert!(!pool.wants_another(), "one is opened for it");
    drop(first);
    let mut second = pool.queue_up();
    assert!(!pool.wants_another(), "the second gets what was opened for the first");
    drop(opening);
    pool.fail_one(filter_api::Reason::ConnectFailure.into());
    assert_eq!(second.served().await.unwrap_err().reason(), filter_api::Reason::ConnectFailure);
    assert!(!pool.wants_another());
}
