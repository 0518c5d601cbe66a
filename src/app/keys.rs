//! Where the key material of a proxy is, as its Proxy object says.

use crate::config::resources::Resource;
use crate::config::resources::proxy::Proxy;
use crate::identity::{Files, Places};
use std::path::Path;

/// The places that a Proxy names. Relative paths start from the folder of its file.
pub(super) fn places(proxy: &Proxy, object: &Resource) -> Places {
    let file = object.place("").file;
    let base = Path::new(&*file).parent().unwrap_or(Path::new("")).to_owned();
    let workload = proxy.identity.as_ref().and_then(|identity| identity.files.as_ref()).map(|files| {
        let own = Files::new(base.join(&files.certificate), base.join(&files.private_key))
            .with_roots(base.join(&files.trust_bundle));
        match files.crl.as_deref().filter(|path| !path.is_empty()) {
            Some(crl) => own.with_crl(base.join(crl)),
            None => own,
        }
    });
    Places {
        workload,
        credentials: proxy.credentials.directory.as_ref().map(Into::into),
        system: proxy.trust.system.as_str().into(),
        base,
    }
}
