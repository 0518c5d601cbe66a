//! Files: ends of processes, rotation, and what goes wrong.

use super::super::verify::{Wrong, in_order};
use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use tempfile::TempDir;

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    (folder, path)
}

/// A field of every record.
fn field(path: &Path, name: &str) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.map(|line| line[name].as_str().map_or_else(|| line[name].to_string(), str::to_owned)).collect()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("not within ten seconds: {what}");
}

#[test]
fn a_chain_goes_on_over_restarts() {
    let (_folder, path) = folder();
    run(&policy(&path), 3);
    run(&policy(&path), 2);
    let report = verify(&[&path]);
    assert!(report.is_intact(), "{:?}", report.findings);
    assert_eq!((report.first, report.last, report.records), (Some(1), Some(9), 9));
    let kinds = field(&path, "event");
    assert_eq!(kinds, ["Start", "Admin", "Admin", "Admin", "Stop", "Start", "Admin", "Admin", "Stop"]);
    let after = field(&path, "after");
    assert_eq!((&*after[0], &*after[5]), ("Nothing", "Stop"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_record_that_was_not_written_to_its_end_is_cut_off_and_told() {
    let (_folder, path) = folder();
    run(&policy(&path), 3);
    let bytes = fs::read(&path).unwrap();
    let torn = &bytes[..bytes.len() - 40];
    fs::write(&path, torn).unwrap();
    run(&policy(&path), 1);
    let report = verify(&[&path]);
    assert!(report.is_intact(), "{:?}", report.findings);
    let text = fs::read_to_string(&path).unwrap();
    let start = text.lines().nth(4).unwrap();
    let kept = text.lines().take(4).map(|line| line.len() + 1).sum::<usize>();
    assert!(start.contains("\"after\":\"Crash\""), "{start}");
    assert!(start.contains(&format!("\"tornBytes\":{},", torn.len() - kept)), "{start}");
    assert!(start.contains(&Hash::of(&torn[kept..]).to_string()), "{start}");
}

#[test]
fn a_process_that_was_killed_is_told_from_one_that_ended() {
    let (_folder, path) = folder();
    run(&policy(&path), 1);
    let text = fs::read_to_string(&path).unwrap();
    let without_stop: String = text.lines().take(2).map(|line| format!("{line}\n")).collect();
    fs::write(&path, without_stop).unwrap();
    run(&policy(&path), 0);
    assert!(verify(&[&path]).is_intact());
    assert_eq!(field(&path, "after")[2], "Crash");
}

#[test]
fn a_file_whose_last_record_was_changed_is_set_aside_as_it_is() {
    let (_folder, path) = folder();
    run(&policy(&path), 1);
    let text = fs::read_to_string(&path).unwrap().replace("the test ends", "the test went");
    fs::write(&path, &text).unwrap();
    run(&policy(&path), 1);
    let aside = numbered(&path, 1);
    assert_eq!(fs::read_to_string(&aside).unwrap(), text, "what was done to it can still be seen");
    assert_eq!(field(&path, "after")[0], "Damage");
    assert!(verify(&[&path]).is_intact());
    let both = verify(&[&aside, &path]);
    assert!(both.findings.iter().any(|finding| finding.what == Wrong::Anew), "{:?}", both.findings);
}

#[test]
fn full_files_are_moved_away_and_the_chain_goes_on() {
    let (folder, path) = folder();
    let policy = mesh::Audit { max_size: 2000, keep: 3, ..policy(&path) };
    run(&policy, 60);
    assert!(fs::metadata(&path).unwrap().len() <= 2000);
    let files: Vec<PathBuf> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let ordered = in_order(&files);
    let expected = [numbered(&path, 3), numbered(&path, 2), numbered(&path, 1), path.clone()];
    assert_eq!(ordered, expected, "the lock is left out");
    let all: Vec<&Path> = ordered.iter().map(PathBuf::as_path).collect();
    let report = verify(&all);
    assert!(report.is_intact(), "{:?}", report.findings);
    assert!(report.first > Some(1), "older files are gone");
    assert!(report.last > Some(60 + 2), "each rotation has a record of its own");
    assert_eq!(field(&path, "event").last().map(String::as_str), Some("Stop"));
    assert_eq!(field(&path, "event")[0], "Rotated");
    assert!(!verify(&[all[1], all[0], all[2], all[3]]).is_intact(), "files in another order");
    assert!(!verify(&[all[0], all[2], all[3]]).is_intact(), "a file is missing");
}

#[test]
fn a_process_that_ends_right_after_a_rotation_leaves_a_chain_that_goes_on() {
    let (_folder, path) = folder();
    run(&policy(&path), 2);
    fs::rename(&path, numbered(&path, 1)).unwrap();
    run(&policy(&path), 1);
    let report = verify(&[&numbered(&path, 1), &path]);
    assert!(report.is_intact(), "{:?}", report.findings);
    assert_eq!(report.records, 7);
}

#[test]
fn a_file_that_is_moved_or_removed_meanwhile_is_followed_by_another_one() {
    let (folder, path) = folder();
    let auditor = auditor();
    auditor.follow(Some(&policy(&path)), 0).unwrap();
    auditor.note(event(0));
    until("the event is written", || auditor.status().unwrap().sequence == 2);
    let moved = folder.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    auditor.note(event(1));
    auditor.end("the test ends");
    let report = verify(&[&moved, &path]);
    assert!(report.is_intact(), "{:?}", report.findings);
    assert_eq!(field(&path, "event"), ["Rotated", "Admin", "Stop"]);
}

#[test]
fn two_processes_do_not_write_one_file() {
    let (_folder, path) = folder();
    let (one, other) = (auditor(), auditor());
    one.follow(Some(&policy(&path)), 0).unwrap();
    other.follow(Some(&policy(&path)), 0).unwrap();
    assert_eq!(one.status().unwrap().problem, None);
    let problem = other.status().unwrap().problem.unwrap();
    assert!(problem.contains("another process writes it"), "{problem}");
    assert!(other.log().as_ref().unwrap().try_take().is_none(), "no place where nothing can be written");
    one.end("the test ends");
    until("the other one may write", || other.status().unwrap().problem.is_none());
    assert!(other.log().as_ref().unwrap().try_take().is_some());
    other.end("the test ends");
    assert!(verify(&[&path]).is_intact());
}

#[test]
fn what_cannot_be_an_audit_is_not_touched() {
    let (folder, path) = folder();
    fs::write(&path, "root:x:0:0\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let foreign = auditor();
    foreign.follow(Some(&policy(&path)), 0).unwrap();
    let problem = foreign.status().unwrap().problem.unwrap();
    assert!(problem.contains("something else"), "{problem}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    let lost = auditor();
    lost.follow(Some(&policy(&folder.path().join("none/audit.jsonl"))), 0).unwrap();
    assert!(lost.status().unwrap().problem.unwrap().contains("does not exist"));
    let directory = auditor();
    directory.follow(Some(&policy(folder.path())), 0).unwrap();
    assert!(directory.status().unwrap().problem.unwrap().contains("regular file"));
}

#[test]
fn a_file_that_others_may_read_is_theirs_no_more() {
    let (_folder, path) = folder();
    run(&policy(&path), 1);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    run(&policy(&path), 1);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn events_wait_for_a_file_that_comes_later_and_places_come_back_with_it() {
    let (folder, _) = folder();
    let path = folder.path().join("later/audit.jsonl");
    let auditor = auditor();
    auditor.follow(Some(&policy(&path)), 0).unwrap();
    (0..OTHERS + 5).for_each(|number| auditor.note(event(number)));
    let log = auditor.log().clone().unwrap();
    assert!(log.try_take().is_none());
    log.count_refused();
    fs::create_dir(folder.path().join("later")).unwrap();
    until("a place is free", || log.places.available_permits() > 0);
    until("what has no record is told", || field(&path, "event").contains(&"Gap".to_owned()));
    drop(log);
    auditor.end("the test ends");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"event\":\"Gap\",\"refused\":1,\"missed\":5,"), "{text}");
    let report = verify(&[&path]);
    assert!(report.is_intact(), "{:?}", report.findings);
    assert_eq!(report.records as usize, OTHERS + 3, "Start, all that fit, Gap, Stop");
}

#[test]
fn a_place_is_free_again_when_its_event_is_written_and_outlives_its_policy() {
    let (folder, path) = folder();
    let auditor = auditor();
    auditor.follow(Some(&policy(&path)), 0).unwrap();
    let log = auditor.log().clone().unwrap();
    let places: Vec<Place> = (0..PLACES).map(|_| log.try_take().unwrap()).collect();
    assert!(log.try_take().is_none());
    let mut places = places.into_iter();
    places.next().unwrap().write(event(0));
    until("the place is free", || log.try_take().is_some());
    let late = places.next().unwrap();
    drop((places, log));
    auditor.follow(Some(&policy(&folder.path().join("other.jsonl"))), 0).unwrap();
    late.write(event(7));
    until("the file is ended", || field(&path, "event").last().is_some_and(|last| last == "Stop"));
    assert!(fs::read_to_string(&path).unwrap().contains("/call/7"), "recorded where it began");
}

#[test]
fn a_policy_without_them_records_no_configurations_and_samples_what_it_says() {
    let (_folder, path) = folder();
    let policy = mesh::Audit { admin: false, allowed_percent: 25.0, ..policy(&path) };
    let auditor = auditor();
    auditor.follow(Some(&policy), 0).unwrap();
    auditor.note(event(0));
    let log = auditor.log().clone().unwrap();
    let sampled = (0..1024_u64).filter(|number| log.samples(number << 54)).count();
    assert_eq!(sampled, 256);
    drop(log);
    auditor.end("the test ends");
    assert_eq!(field(&path, "event"), ["Start", "Stop"]);
}
