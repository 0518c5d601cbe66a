//! Where the key material of a proxy is, as its Proxy object says.

use crate::config::resources::Resource;
use crate::config::resources::proxy::{Identity, IdentityFiles, IdentitySds, Proxy};
use crate::identity::{Files, Names, Places, Sds, Supply};
use std::path::Path;

/// The places that a Proxy names. Relative paths start from the folder of its file.
pub(super) fn places(proxy: &Proxy, object: &Resource) -> Places {
    let file = object.place("").file;
    let base = Path::new(&*file).parent().unwrap_or(Path::new("")).to_owned();
    let workload = match &proxy.identity {
        Some(Identity { files: Some(files), .. }) => Some(self::files(files, &base).into()),
        Some(Identity { sds: Some(server), .. }) => Some(Supply::Sds(sds(server, proxy, object, &base))),
        _ => None,
    };
    Places {
        workload,
        credentials: proxy.credentials.directory.as_ref().map(Into::into),
        system: proxy.trust.system.as_str().into(),
        base,
    }
}

fn files(files: &IdentityFiles, base: &Path) -> Files {
    let own = Files::new(base.join(&files.certificate), base.join(&files.private_key))
        .with_roots(base.join(&files.trust_bundle));
    match files.crl.as_deref().filter(|path| !path.is_empty()) {
        Some(crl) => own.with_crl(base.join(crl)),
        None => own,
    }
}

fn sds(server: &IdentitySds, proxy: &Proxy, object: &Resource, base: &Path) -> Sds {
    let (name, namespace) = (&object.key.name, &object.key.namespace);
    let id = proxy.discovery.xds.as_ref().and_then(|xds| xds.node.id.clone());
    Sds {
        path: base.join(&server.path),
        names: Names { certificate: server.certificate_name.clone(), bundle: server.bundle_name.clone() },
        node: id.unwrap_or_else(|| format!("{name}.{namespace}")),
        cluster: if proxy.workload.name.is_empty() { name.to_string() } else { proxy.workload.name.clone() },
    }
}
