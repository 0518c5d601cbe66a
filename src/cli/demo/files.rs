//! The configuration of the demo: the files in the binary, and the folder that they are copied to.

use super::ports::Ports;
use super::{Error, system};
use crate::identity::issue::{self, Authority, Workload};
use serde::Deserialize;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The shop as its authors wrote it. Each object becomes a file of its own, so that it can be changed or removed alone.
const SHOP: [&str; 2] = [
    include_str!("../../../config/demo/shop/istio.yaml"),
    include_str!("../../../config/demo/shop/kubernetes.yaml"),
];

macro_rules! mesh {
    ($($name:literal)*) => {
        [$(($name, include_str!(concat!("../../../config/demo/mesh/", $name, ".yaml")))),*]
    };
}

/// What the shop needs to run on one machine.
const MESH: [(&str, &str); 11] = mesh! {
    "mesh" "ingress" "product-service-v1" "product-service-v1-endpoints" "product-service-v2"
    "product-service-v2-endpoints" "order-service" "payment-service" "inventory-service" "user-service" "shipping-service"
};

/// The VirtualService whose removal lets the roll-out take over.
pub(super) const CANARY: &str = "shop/virtualservice-product-service-canary.yaml";
/// The VirtualService that sends a tenth to version 2.
pub(super) const ROLLOUT: &str = "shop/virtualservice-product-service-rollout.yaml";
/// Where callers find version 1 of product-service.
pub(super) const ENDPOINTS: &str = "mesh/product-service-v1-endpoints.yaml";

/// The trust domain of the shop.
const TRUST_DOMAIN: &str = "cluster.local";

/// How long the demo's certificates are valid.
const DAYS: u32 = 30;

/// The folder of a running demo.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    keep: bool,
}

impl Folder {
    /// Chooses ports for everything that the files name.
    pub(super) fn ports(any: bool) -> Result<Ports, Error> {
        Ports::choose(MESH.iter().map(|(_, text)| *text), any).map_err(system("choosing ports"))
    }

    /// Writes the configuration into `keep`, or into a folder of its own that goes away with the demo.
    pub(super) fn create(keep: Option<&Path>, ports: &Ports) -> Result<Self, Error> {
        let root = match keep {
            Some(path) => empty(path)?,
            None => temporary()?,
        };
        let folder = Self { root, keep: keep.is_some() };
        for part in ["config/shop", "config/mesh", "logs"] {
            let path = folder.root.join(part);
            fs::create_dir_all(&path).map_err(system(format!("creating {}", path.display())))?;
        }
        for text in SHOP {
            for object in text.split_inclusive("\n---\n").map(|object| object.trim_end_matches("---\n")) {
                folder.write(&format!("shop/{}.yaml", name(object)?), object)?;
            }
        }
        for (name, text) in MESH {
            folder.write(&format!("mesh/{name}.yaml"), &ports.fill(text))?;
        }
        folder.certify()?;
        Ok(folder)
    }

    /// Gives every workload a certificate, by an authority that nobody keeps.
    fn certify(&self) -> Result<(), Error> {
        let failed = |error: issue::Error| system("making certificates")(std::io::Error::other(error));
        let authority = Authority::new(TRUST_DOMAIN, DAYS).map_err(failed)?;
        for (namespace, account) in MESH.iter().flat_map(|(_, text)| accounts(text)) {
            let workload = Workload {
                trust_domain: TRUST_DOMAIN,
                namespace,
                service_account: account,
                dns: &[],
                days: DAYS,
            };
            let issued = authority.issue(&workload).map_err(failed)?;
            let folder = self.root.join("certs").join(account);
            let failed = |error| system(format!("writing certificates into {}", folder.display()))(error);
            fs::create_dir_all(&folder).map_err(failed)?;
            let mut key = OpenOptions::new();
            let key = key.write(true).create(true).truncate(true).mode(0o600).open(folder.join("key.pem"));
            key.and_then(|mut file| file.write_all(issued.key.reveal())).map_err(failed)?;
            fs::write(folder.join("cert-chain.pem"), &issued.certificate).map_err(failed)?;
            fs::write(folder.join("root-cert.pem"), &issued.root).map_err(failed)?;
        }
        Ok(())
    }

    /// The configuration that every proxy reads.
    pub(super) fn config(&self) -> PathBuf {
        self.root.join("config")
    }

    /// A file of the configuration.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.config().join(name)
    }

    /// Where a process writes.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    /// What a file of the configuration holds.
    pub(super) fn read(&self, name: &str) -> Result<String, Error> {
        let path = self.path(name);
        fs::read_to_string(&path).map_err(system(format!("reading {}", path.display())))
    }

    /// Writes a file of the configuration as a whole: nobody reads half of it.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let (path, new) = (self.path(name), self.root.join("new"));
        let failed = |error| system(format!("writing {}", path.display()))(error);
        fs::write(&new, text).map_err(failed)?;
        fs::rename(&new, &path).map_err(failed)
    }

    /// Removes a file of the configuration.
    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name);
        fs::remove_file(&path).map_err(system(format!("removing {}", path.display())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            // A folder of temporary files that cannot be removed is the system's to clean.
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

/// The namespaces and service accounts of the Proxies in a file.
fn accounts(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split("\n---\n").filter(|object| object.contains("kind: Proxy")).filter_map(|object| {
        let value = |field: &str| object.lines().find_map(|line| line.trim().strip_prefix(field));
        Some((value("namespace: ")?, value("serviceAccount: ")?))
    })
}

/// A new folder that only we may read.
fn temporary() -> Result<PathBuf, Error> {
    let parent = std::env::temp_dir();
    let path = parent.join(format!("sidegate-demo-{:08x}", fastrand::u32(..)));
    let created = DirBuilder::new().mode(0o700).create(&path);
    created.map_err(system(format!("creating {}", path.display())))?;
    Ok(path)
}

/// The folder that is to be kept: a new one, or one without files.
fn empty(path: &Path) -> Result<PathBuf, Error> {
    fs::create_dir_all(path).map_err(system(format!("creating {}", path.display())))?;
    let mut files = fs::read_dir(path).map_err(system(format!("reading {}", path.display())))?;
    if files.next().is_some() {
        return Err(Error::Usage(format!(
            "--keep {}: the folder is not empty; name a new one",
            path.display()
        )));
    }
    path.canonicalize().map_err(system(format!("reading {}", path.display())))
}

/// The name of an object's file: kind and name.
fn name(object: &str) -> Result<String, Error> {
    #[derive(Deserialize)]
    struct Object {
        kind: String,
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        name: String,
    }
    let object: Object = serde_yaml::from_str(object)
        .map_err(|error| Error::Step(format!("an object of the shop has no kind or name: {error}")))?;
    Ok(format!("{}-{}", object.kind.to_ascii_lowercase(), object.metadata.name))
}

#[cfg(test)]
mod tests {
    use super::{CANARY, ENDPOINTS, Folder, ROLLOUT, SHOP};

    #[test]
    fn every_object_of_the_shop_is_a_file_of_its_own_as_it_was_written() {
        let ports = Folder::ports(true).unwrap();
        let folder = Folder::create(None, &ports).unwrap();
        let root = folder.root.clone();
        for name in [CANARY, ROLLOUT, ENDPOINTS] {
            assert!(folder.path(name).exists(), "{name}");
        }
        let files: Vec<_> =
            std::fs::read_dir(folder.path("shop")).unwrap().map(|file| file.unwrap().path()).collect();
        let objects = SHOP.iter().map(|text| text.split("\n---\n").count()).sum::<usize>();
        assert_eq!(files.len(), objects);
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(SHOP.iter().any(|shop| shop.contains(text.trim_end())), "{}", file.display());
            assert!(!text.contains("---"), "{}", file.display());
        }
        drop(folder);
        assert!(!root.exists());
    }

    #[test]
    fn a_folder_that_holds_something_is_not_written_into() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("mine"), "").unwrap();
        let ports = Folder::ports(true).unwrap();
        let error = Folder::create(Some(folder.path()), &ports).unwrap_err();
        assert!(error.to_string().contains("is not empty; name a new one"), "{error}");
    }
}
