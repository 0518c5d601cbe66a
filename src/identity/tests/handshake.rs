//! Handshakes in memory.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use filter_api::TlsFacts;
use rustls::ServerConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::identity::{
    ClientSettings, ClientTls, Clients, Identity, ServerSettings, ServerTls, Servers, alpn, client_config,
    explain, server_config,
};

pub(super) type Outcome = Result<TlsFacts, String>;

pub(super) fn name() -> ServerName<'static> {
    let endpoint = IpAddr::V4(Ipv4Addr::LOCALHOST);
    ClientTls::server_name(Some("outbound_.80_._.reviews.shop.svc.cluster.local"), endpoint).unwrap()
}

/// What server and client make of each other. Each sends a byte after the handshake, so that each sees the other's verdict.
pub(super) async fn shake(server: &ServerTls, client: &ClientTls) -> (Outcome, Outcome) {
    shake_as(server, client, Arc::clone(server.config()), Arc::clone(client.config()), name()).await
}

pub(super) async fn shake_as(
    server: &ServerTls,
    client: &ClientTls,
    server_config: Arc<ServerConfig>,
    client_config: Arc<rustls::ClientConfig>,
    name: ServerName<'static>,
) -> (Outcome, Outcome) {
    let (near, far) = duplex(64 * 1024);
    let serve = async {
        let mut stream =
            TlsAcceptor::from(server_config).accept(near).await.map_err(|error| explain(&error))?;
        let facts = server.facts(stream.get_ref().1).map_err(|refused| refused.to_string())?;
        stream.write_all(b"s").await.map_err(|error| explain(&error))?;
        stream.read_exact(&mut [0]).await.map_err(|error| explain(&error))?;
        Ok(facts)
    };
    let call = async {
        let connecting = TlsConnector::from(client_config).connect(name.clone(), far);
        let mut stream = connecting.await.map_err(|error| explain(&error))?;
        let facts = client.facts(stream.get_ref().1, &name).map_err(|refused| refused.to_string())?;
        stream.write_all(b"c").await.map_err(|error| explain(&error))?;
        stream.read_exact(&mut [0]).await.map_err(|error| explain(&error))?;
        Ok(facts)
    };
    tokio::join!(serve, call)
}

pub(super) fn server(identity: Identity) -> ServerTls {
    server_of(&Arc::new(identity), &ServerSettings::new(Clients::Mesh, alpn::SERVER_HTTP))
}

pub(super) fn server_of(identity: &Arc<Identity>, settings: &ServerSettings) -> ServerTls {
    server_config(std::slice::from_ref(identity), settings).unwrap()
}

pub(super) fn client(identity: &Identity) -> ClientTls {
    client_of(identity, &ClientSettings::new(Servers::Mesh(Vec::new()), alpn::CLIENT_HTTP2))
}

pub(super) fn client_of(identity: &Identity, settings: &ClientSettings) -> ClientTls {
    client_config(Some(identity), identity.trust(), settings).unwrap()
}
