//! Checks of Sidegate's own kinds.

use std::path::{Component, Path};

use crate::config::decode::Report;
use crate::config::resources::own::audit_policy::{AuditEvent, AuditPolicy};

/// The smallest file that is worth a name of its own.
const LEAST_SIZE: u64 = 64 * 1024;

pub(super) fn check_audit(spec: &AuditPolicy, report: &mut Report<'_>) {
    if !spec.events.contains(&AuditEvent::Denied) {
        let message = "leaves refusals out, which every audit records";
        report.error("no-denied", "spec.events", message, "add `Denied`");
    }
    if let Some(percent) = spec.allowed_percent {
        if !(0.0..=100.0).contains(&percent) {
            let message = format!("`{percent}` is no percentage");
            report.error("bad-number", "spec.allowedPercent", message, "write a number from 0 to 100");
        } else if !spec.events.contains(&AuditEvent::Allowed) {
            let hint = "add `Allowed` to `events`, or leave it out";
            report.warning(
                "no-effect",
                "spec.allowedPercent",
                "has no effect: `events` has no `Allowed`",
                hint,
            );
        }
    }
    let path = Path::new(&spec.file.path);
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let named = path.file_name().is_some() && !spec.file.path.ends_with('/');
    if !(path.is_absolute() && plain && named && spec.file.path.len() < 1024) {
        let message = format!("`{}` is no absolute path of a file", spec.file.path);
        let hint = "write it as in `/var/log/sidegate/audit.jsonl`, in a folder that exists";
        report.error("bad-path", "spec.file.path", message, hint);
    } else if path.starts_with("/dev") || path.starts_with("/proc") {
        let message = "is no file whose records could be read again, which the chain needs";
        report.error("bad-path", "spec.file.path", message, "write to a file of a disk");
    }
    if spec.file.max_size.0 < LEAST_SIZE {
        let message = format!("`{}` is less than 64Ki", spec.file.max_size);
        report.error("bad-number", "spec.file.maxSize", message, "write 64Ki or more");
    }
    if !(1..=1000).contains(&spec.file.keep) {
        let message = format!("`{}` is not from 1 to 1000", spec.file.keep);
        report.error(
            "bad-number",
            "spec.file.keep",
            message,
            "keep one file at least: it holds the end of the chain",
        );
    }
}
