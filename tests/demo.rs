//! The demo as a user and as CI run it: a mesh of processes that holds what it promises and leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Without `--once` the demo prefers the ports of its files, so only one at a time.
static PORTS: Mutex<()> = Mutex::new(());

fn demo(arguments: &[&str], temporary: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidegate"));
    command.arg("demo").args(arguments).env("TMPDIR", temporary).env_remove("RUST_LOG");
    command
}

#[test]
fn the_tour_holds_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let output = demo(&["--once"], temporary.path()).output().unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{report}\n{errors}");
    for step in
        ["start", "gateway", "http/2", "grpc", "upgrade", "canary", "refusal", "explain", "reload", "drain"]
    {
        let line = report.lines().find(|line| line.split_whitespace().nth(1) == Some(step));
        assert!(line.is_some_and(|line| line.starts_with("ok ")), "{step}: {report}");
    }
    assert!(report.contains("10 of 10 steps held"), "{report}");
    // `0 of 2060 requests lost`, once for the changes of files and once for the drain.
    let words: Vec<&str> = report.split_whitespace().collect();
    let sent: Vec<u32> = words
        .windows(5)
        .filter(|words| words[0] == "0" && words[1] == "of" && words[3] == "requests" && words[4] == "lost")
        .map(|words| words[2].parse().unwrap())
        .collect();
    assert_eq!(sent.len(), 2, "{report}");
    assert!(sent.iter().all(|sent| *sent > 300), "{report}");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "files are left behind");
}

#[test]
fn a_folder_that_is_kept_holds_configuration_and_logs() {
    let temporary = tempfile::tempdir().unwrap();
    let _ports = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = temporary.path().join("kept");
    let mut running = Running::start(&["--keep", kept.to_str().unwrap()], temporary.path());
    running.signal(Signal::INT);
    assert!(running.process.wait().unwrap().success());
    assert!(kept.join("config/shop/virtualservice-product-service-canary.yaml").exists());
    assert!(fs::read_to_string(kept.join("logs/order-service.log")).unwrap().contains("in force"));
}

#[test]
fn ctrl_c_ends_every_process_and_removes_the_folder() {
    let temporary = tempfile::tempdir().unwrap();
    let _ports = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut running = Running::start(&[], temporary.path());
    running.signal(Signal::INT);
    assert!(running.process.wait().unwrap().success());
    let alive: Vec<_> = running.children.iter().filter(|child| is_alive(**child)).collect();
    assert!(alive.is_empty(), "{alive:?}");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn no_proxy_survives_when_the_demo_is_killed() {
    let temporary = tempfile::tempdir().unwrap();
    let _ports = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut running = Running::start(&[], temporary.path());
    running.process.kill().unwrap();
    running.process.wait().unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while running.children.iter().any(|child| is_alive(*child)) {
        assert!(Instant::now() < end, "{:?} are alive", running.children);
        std::thread::yield_now();
    }
}

/// A demo that waits for the user.
struct Running {
    process: Child,
    /// The ids of its proxies.
    children: Vec<u32>,
}

impl Running {
    /// Starts it and reads what it says until everything runs.
    fn start(arguments: &[&str], temporary: &Path) -> Self {
        let mut process = demo(arguments, temporary).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut children = Vec::new();
        for line in &mut lines {
            let line = line.unwrap();
            if line.contains("http://127.0.0.1:") && !line.trim_start().starts_with("curl") {
                children.extend(line.split_whitespace().find_map(|word| word.parse::<u32>().ok()));
            }
            if line.starts_with("Ctrl-C ends everything") {
                break;
            }
        }
        // Read on, so that the demo never writes to a closed pipe.
        std::thread::spawn(move || lines.count());
        assert_eq!(children.len(), 8, "{children:?}");
        assert!(children.iter().all(|child| is_alive(*child)));
        Self { process, children }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.process.id().try_into().unwrap()).unwrap(), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only of a test that failed half-way.
        let _ = self.process.kill();
    }
}

/// Whether a process is there and not merely waiting for its parent to notice its end.
fn is_alive(id: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}
