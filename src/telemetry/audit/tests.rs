mod chain;
mod files;

use super::*;
use crate::mesh::Origin;
use crate::telemetry::metrics::RegistryLimits;
use http::Method;

fn policy(path: &Path) -> mesh::Audit {
    mesh::Audit {
        allowed_percent: 100.0,
        configuration: true,
        certificate: true,
        admin: true,
        path: path.to_owned(),
        max_size: 1 << 20,
        keep: 10,
        sync_always: true,
        deny_when_full: true,
        origin: Origin::BUILT_IN,
    }
}

fn auditor() -> Auditor {
    Auditor::new(&Registry::new(RegistryLimits::default()))
}

fn event(number: usize) -> Event {
    Event::Admin(Box::new(Call {
        by: ([127, 0, 0, 1], 9).into(),
        method: Method::POST,
        target: format!("/call/{number}"),
        status: 200,
    }))
}

/// Writes so many events as one process does, and ends.
fn run(policy: &mesh::Audit, events: usize) {
    let auditor = auditor();
    auditor.follow(Some(policy), 0).unwrap();
    (0..events).for_each(|number| auditor.note(event(number)));
    auditor.end("the test ends");
}

fn verify(files: &[&Path]) -> verify::Report {
    let mut verifier = verify::Verifier::default();
    files.iter().for_each(|file| verifier.file(file).unwrap());
    verifier.report()
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    format!("{}.{number}", path.display()).into()
}
