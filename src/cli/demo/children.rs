//! The proxies of the demo: processes of this very binary, one for each workload.

use super::client::Client;
use super::files::Folder;
use super::ports::Ports;
use super::workload::{Workload, page};
use super::{Error, system};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep, timeout};

/// A proxy that is not ready by then will not be.
const READY: Duration = Duration::from_secs(20);
/// How long an ending process may take: its grace period and a little more.
const END: Duration = Duration::from_secs(12);

/// The running proxies. Dropping them kills them; they also end by themselves when this process is gone.
#[derive(Debug)]
pub(super) struct Children(Vec<Proxy>);

#[derive(Debug)]
struct Proxy {
    workload: &'static Workload,
    process: Child,
    /// Apart from the process: waiting for that would close it, and with it end the child without a drain.
    _stdin: Option<ChildStdin>,
    log: PathBuf,
}

impl Children {
    /// Starts a proxy for each workload.
    pub(super) fn start(workloads: &'static [Workload], folder: &Folder) -> Result<Self, Error> {
        let binary = std::env::current_exe().map_err(system("finding our own binary"))?;
        let mut children = Vec::with_capacity(workloads.len());
        for workload in workloads {
            let log = folder.log(workload.name);
            let failed = || system(format!("starting the proxy of {}", workload.name));
            let output = File::create(&log).map_err(failed())?;
            let errors = output.try_clone().map_err(failed())?;
            let mut process = Command::new(&binary)
                .args(["run", "--exit-with-stdin", "--log", "info", "--as", workload.proxy, "--config"])
                .arg(folder.config())
                // Kept open as long as we live; its end tells the child that we are gone.
                .stdin(Stdio::piped())
                .stdout(output)
                .stderr(errors)
                // Ctrl-C in the terminal is for us, who end them in order.
                .process_group(0)
                .kill_on_drop(true)
                .spawn()
                .map_err(failed())?;
            let stdin = process.stdin.take();
            children.push(Proxy { workload, process, _stdin: stdin, log });
        }
        Ok(Self(children))
    }

    /// Waits until every proxy says that it is ready.
    pub(super) async fn ready(&mut self, ports: &Ports) -> Result<Duration, Error> {
        let began = Instant::now();
        for proxy in &mut self.0 {
            let mut client = Client::http1(ports.of(proxy.workload.port(page::HEALTH)));
            loop {
                if client.get("localhost", "/healthz/ready").await.is_ok_and(|answer| answer.status == 200) {
                    break;
                }
                if let Some(status) = proxy.process.try_wait().map_err(system("waiting for a proxy"))? {
                    return Err(proxy.ended(status));
                }
                if began.elapsed() > READY {
                    let name = proxy.workload.name;
                    return Err(Error::Step(format!(
                        "the proxy of {name} is not ready after {} s; see {}",
                        READY.as_secs(),
                        proxy.log.display()
                    )));
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(began.elapsed())
    }

    /// The process of each workload.
    pub(super) fn process_ids(&self) -> Vec<(&'static str, u32)> {
        self.0.iter().filter_map(|proxy| Some((proxy.workload.name, proxy.process.id()?))).collect()
    }

    /// Waits until one of them ends, which none should.
    pub(super) async fn watch(&mut self) -> Error {
        loop {
            for proxy in &mut self.0 {
                match proxy.process.try_wait() {
                    Ok(None) => {}
                    Ok(Some(status)) => return proxy.ended(status),
                    Err(error) => return system("waiting for a proxy")(error),
                }
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Asks one proxy to drain and end, and waits for it.
    pub(super) async fn drain(&mut self, name: &str) -> Result<Duration, Error> {
        let at = self.0.iter().position(|proxy| proxy.workload.name == name);
        let Some(at) = at else { return Err(Error::Step(format!("there is no proxy of {name}"))) };
        let mut proxy = self.0.remove(at);
        let began = Instant::now();
        proxy.terminate()?;
        let status = proxy.wait().await?;
        if status.success() { Ok(began.elapsed()) } else { Err(proxy.ended(status)) }
    }

    /// Ends them all, and says which had to be killed.
    pub(super) async fn stop(mut self) -> Result<(), Error> {
        for proxy in &self.0 {
            // One that is gone already is waited for below.
            let _ = proxy.terminate();
        }
        let mut failed = None;
        for proxy in &mut self.0 {
            if let Err(error) = proxy.wait().await {
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

impl Proxy {
    fn terminate(&self) -> Result<(), Error> {
        let pid = self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let Some(pid) = pid else { return Ok(()) };
        // Not reaped yet, so the id is still that of our child.
        kill_process(pid, Signal::TERM)
            .map_err(|error| system(format!("ending {}", self.workload.name))(error.into()))
    }

    async fn wait(&mut self) -> Result<ExitStatus, Error> {
        let failed = || system(format!("waiting for {}", self.workload.name));
        if let Ok(status) = timeout(END, self.process.wait()).await {
            return status.map_err(failed());
        }
        self.process.kill().await.map_err(failed())?;
        let name = self.workload.name;
        Err(Error::Step(format!("the proxy of {name} did not end within {} s and was killed", END.as_secs())))
    }

    /// What a proxy said last before it ended.
    fn ended(&self, status: ExitStatus) -> Error {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join("\n  ");
        Error::Step(format!(
            "the proxy of {} ended ({status}); its last words:\n  {last}",
            self.workload.name
        ))
    }
}
