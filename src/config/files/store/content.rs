//! What a file came to, small enough to be kept.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::config::decode::Object;
use crate::config::finding::Finding;
use crate::config::resources::{ObjectKey, Resource};
use crate::config::spans::{MAX_FILE_BYTES, Place};

/// What a file came to.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Of its text.
    pub(super) hash: u64,
    pub(super) identity: Identity,
    pub(super) objects: Box<[Version]>,
    pub(super) findings: Vec<Finding>,
    pub(super) unreadable: bool,
    pub(super) broken: bool,
    pub(super) torn: Vec<Object>,
}

/// Which file it was. One that is written in place stays the same, one that is replaced does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    /// Numbers of inodes are used again.
    created: Option<SystemTime>,
}

/// Reads a file, and says which one it is and how long ago it was written.
pub(super) fn read(path: &Path) -> io::Result<(String, Identity, Option<Duration>)> {
    let mut text = String::new();
    let file = File::open(path)?;
    let of = |metadata: &Metadata| Identity {
        device: metadata.dev(),
        inode: metadata.ino(),
        created: metadata.created().ok(),
    };
    // One byte more than allowed, so that the reader of YAML can tell.
    (&file).take(MAX_FILE_BYTES as u64 + 1).read_to_string(&mut text)?;
    let metadata = file.metadata()?;
    // Clocks of other machines may be ahead.
    let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
    Ok((text, of(&metadata), age))
}

/// One version of an object.
#[derive(Debug)]
pub(super) enum Version {
    /// There is nothing to say about it.
    Plain(Arc<Resource>),
    /// It is rejected, or there is something to say.
    Told(Box<Object>),
}

impl Version {
    pub(super) fn key(&self) -> &ObjectKey {
        match self {
            Self::Plain(resource) => &resource.key,
            Self::Told(object) => &object.key,
        }
    }

    /// What closes the scope of a rejected object.
    pub(super) fn stand_in(&self) -> Option<&Arc<Resource>> {
        match self {
            Self::Plain(_) => None,
            Self::Told(object) => object.stand_in.as_ref(),
        }
    }

    pub(super) fn file(&self) -> &Arc<Path> {
        match self {
            Self::Plain(resource) => resource.placement.file(),
            Self::Told(object) => &object.place.file,
        }
    }

    pub(super) fn place(&self) -> Place {
        match self {
            Self::Plain(resource) => resource.place(""),
            Self::Told(object) => object.place.clone(),
        }
    }

    pub(super) fn resource(&self) -> Option<&Arc<Resource>> {
        match self {
            Self::Plain(resource) => Some(resource),
            Self::Told(object) => object.resource.as_ref(),
        }
    }

    pub(super) fn findings(&self) -> &[Finding] {
        match self {
            Self::Plain(_) => &[],
            Self::Told(object) => &object.findings,
        }
    }
}
