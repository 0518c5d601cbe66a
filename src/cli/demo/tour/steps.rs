//! The steps of the tour. Each gives its figures, or says what did not hold.

use super::super::children::Children;
use super::super::client::Client;
use super::super::files::{CANARY, ENDPOINTS, Folder, ROLLOUT};
use super::super::load::{Count, Load};
use super::super::ports::Ports;
use super::super::upgrade;
use super::super::workload::{INGRESS, ORDER, PRODUCT_V1, Workload, page};
use bytes::Bytes;
use serde_json::Value;
use std::time::{Duration, Instant};

/// The host that the shop's Gateway serves.
const SHOP: &str = "api.ecommerce.example.com";
/// The two versions of product-service.
const V1: &str = "product-service v1";
/// See [`V1`].
const V2: &str = "product-service v2";
/// How long a change of a file may take to come into force.
const RELOAD: Duration = Duration::from_secs(5);

type Outcome = Result<String, String>;

/// What the steps work on.
#[derive(Debug)]
pub(super) struct Tour<'a> {
    pub(super) folder: &'a Folder,
    pub(super) ports: &'a Ports,
}

impl Tour<'_> {
    fn port(&self, workload: &Workload, page: u16) -> u16 {
        self.ports.of(workload.port(page))
    }

    fn gateway_port(&self) -> u16 {
        self.port(INGRESS, page::SERVICE)
    }

    fn order_port(&self) -> u16 {
        self.port(ORDER, page::OUTBOUND)
    }

    /// Products, users and orders through the gateway; an order takes four more calls between the sidecars.
    pub(super) async fn gateway(&self) -> Outcome {
        let mut client = Client::http1(self.gateway_port());
        let mut count = Count::default();
        for path in ["/api/products/7", "/api/users/7", "/api/orders"] {
            for _ in 0..50 {
                count.add(client.get(SHOP, path).await);
            }
        }
        count.nothing_lost()?;
        for who in [V1, V2, "user-service v1", "order-service v1"] {
            if !count.by.contains_key(who) {
                return Err(format!("{who} answered nothing: {}", count.shares()));
            }
        }
        let order = client.get(SHOP, "/api/orders").await?.json();
        let calls = order["calls"].as_array().map_or(0, Vec::len);
        if calls != 4 {
            return Err(format!("an order took {calls} calls, not 4"));
        }
        Ok(format!(
            "{} requests by host and path, {}; each order took 4 calls more",
            count.sent,
            count.shares()
        ))
    }

    /// Requests at once on one connection.
    pub(super) async fn http2(&self) -> Outcome {
        let port = self.gateway_port();
        let clients = 10;
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..clients {
            running.spawn(async move {
                let (mut client, mut count) = (Client::http2(port), Count::default());
                for _ in 0..20 {
                    count.add(client.get(SHOP, "/api/users/7").await);
                }
                count
            });
        }
        let mut sent = 0;
        while let Some(count) = running.join_next().await {
            let count = count.map_err(|error| error.to_string())?;
            count.nothing_lost()?;
            sent += count.sent;
        }
        Ok(format!("{sent} requests on {clients} connections with prior knowledge"))
    }

    /// Messages that come back, and the status in the trailers.
    pub(super) async fn grpc(&self) -> Outcome {
        let mut client = Client::http2(self.order_port());
        let calls = 50;
        for call in 0..calls {
            let message = Bytes::from(vec![0, 0, 0, 0, 2, 8, call]);
            let headers = [("content-type", "application/grpc"), ("te", "trailers")];
            let request =
                client.request("POST", "user-service", "/shop.Users/Get", &headers, message.clone())?;
            let answer = client.send(request).await?;
            let status = answer.trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
            if answer.status != 200 || answer.body != message || status.is_none_or(|status| status != "0") {
                return Err(format!("call {call}: {} with trailers {:?}", answer.status, answer.trailers));
            }
        }
        Ok(format!("{calls} calls through two sidecars, each with its trailers"))
    }

    /// A connection that is handed over to the application.
    pub(super) async fn upgrade(&self) -> Outcome {
        let bytes = upgrade::echo(self.gateway_port(), SHOP, "/api/users/live", 20, 10_000).await?;
        Ok(format!("{bytes} bytes there and back through gateway and sidecar"))
    }

    /// The header decides over the version.
    pub(super) async fn canary(&self) -> Outcome {
        let mut client = Client::http1(self.order_port());
        let (mut with, mut without) = (Count::default(), Count::default());
        for _ in 0..50 {
            let headers = [("X-Canary", "true")];
            let request =
                client.request("GET", "product-service", "/api/products/7", &headers, Bytes::new())?;
            with.add(client.send(request).await);
            without.add(client.get("product-service", "/api/products/7").await);
        }
        with.nothing_lost()?;
        without.nothing_lost()?;
        if with.by.get(V2) != Some(&50) || without.by.get(V1) != Some(&50) {
            return Err(format!("with x-canary: {}; without: {}", with.shares(), without.shares()));
        }
        Ok(format!("with x-canary: true {}, without {}", with.shares(), without.shares()))
    }

    /// An unknown host is refused in words.
    pub(super) async fn refusal(&self) -> Outcome {
        let answer = Client::http1(self.order_port()).get("prodct-service", "/").await?;
        if answer.status != 404 || !answer.text().contains("prodct-service") {
            return Err(format!("an unknown host was answered {}: {}", answer.status, answer.text()));
        }
        Ok(format!("unknown host: 404, \"{}\"", answer.text()))
    }

    /// The live proxy says which way a request takes.
    pub(super) async fn explain(&self) -> Outcome {
        let path = "/explain?method=GET&url=http://product-service/api/products/7&header=x-canary:%20true";
        let json = self.admin(path).await?;
        let cluster = json["destinations"][0]["cluster"].as_str().unwrap_or_default();
        if cluster != "outbound|80|v2|product-service.ecommerce.svc.cluster.local" {
            return Err(format!("the canary is explained as going to {cluster:?}: {json}"));
        }
        let tried = json["rules"].as_array().map_or(0, Vec::len);
        Ok(format!("x-canary: true leads to {cluster}; {tried} steps, each with its place in a file"))
    }

    /// Files change while requests run: roll-out, other weights, a broken file, and back.
    pub(super) async fn reload(&self) -> Outcome {
        let background = Load::start(4, self.order_port(), "product-service", "/api/products/7");
        let outcome = self.edits().await;
        let count = background.stop().await;
        let edits = outcome?;
        count.nothing_lost()?;
        Ok(format!("{edits}\n0 of {} requests lost during 4 changes of files", count.sent))
    }

    async fn edits(&self) -> Outcome {
        let (canary, rollout) = (self.read(CANARY)?, self.read(ROLLOUT)?);
        let mut lines = Vec::new();

        let took = self.change(|| self.folder.remove(CANARY)).await?;
        let count = self.measure(600).await?;
        near(&count, 10.0, 5.0)?;
        lines.push(format!("90/10 after {took:?}: {}", count.shares()));

        let even = rollout.replace("weight: 90", "weight: 50").replace("weight: 10", "weight: 50");
        let took = self.change(|| self.folder.write(ROLLOUT, &even)).await?;
        let count = self.measure(600).await?;
        near(&count, 50.0, 10.0)?;
        lines.push(format!("50/50 after {took:?}: {}", count.shares()));

        let broken = even.replacen("weight: 50", "weight: [50", 1);
        self.change(|| self.folder.write(ROLLOUT, &broken)).await?;
        let count = self.measure(200).await?;
        near(&count, 50.0, 18.0)?;
        let rejected = self.admin("/config_dump").await?["configuration"]["rejected"].take();
        // The file itself is listed as well.
        let is_kept = |entry: &Value| {
            entry["object"] == "VirtualService ecommerce/product-service-rollout" && entry["keptOld"] == true
        };
        if !rejected.as_array().is_some_and(|all| all.iter().any(is_kept)) {
            return Err(format!("a broken file is not reported as one whose old version holds: {rejected}"));
        }
        lines.push(format!("a broken file: the last good version holds: {}", count.shares()));

        self.change(|| {
            self.folder.write(ROLLOUT, &rollout)?;
            self.folder.write(CANARY, &canary)
        })
        .await?;
        // Two files: the second may come into force a moment later.
        let until = Instant::now() + RELOAD;
        loop {
            let count = self.measure(100).await?;
            if count.by.get(V1) == Some(&count.sent) {
                lines.push(format!("and back: {}", count.shares()));
                return Ok(lines.join("\n"));
            }
            if Instant::now() > until {
                return Err(format!("the canary does not hold again: {}", count.shares()));
            }
        }
    }

    /// Version 1 goes away as a pod does: taken off the endpoints and told to end at the same time.
    pub(super) async fn drain(&self, children: &mut Children) -> Outcome {
        let load = Load::start(8, self.gateway_port(), SHOP, "/api/products/7");
        load.more(200).await;
        let removed = self.folder.remove(ENDPOINTS).map_err(|error| error.to_string());
        let drained = children.drain(PRODUCT_V1.name).await.map_err(|error| error.to_string());
        load.more(200).await;
        let count = load.stop().await;
        removed?;
        let took = drained?;
        count.nothing_lost()?;
        let after = Load::start(2, self.gateway_port(), SHOP, "/api/products/7");
        after.more(100).await;
        let after = after.stop().await;
        after.nothing_lost()?;
        if after.by.contains_key(V1) {
            return Err(format!("version 1 still answers: {}", after.shares()));
        }
        Ok(format!(
            "SIGTERM to the proxy of {}, gone after {:.1} s: 0 of {} requests lost ({})",
            PRODUCT_V1.name,
            took.as_secs_f64(),
            count.sent,
            count.shares()
        ))
    }

    fn read(&self, name: &str) -> Result<String, String> {
        self.folder.read(name).map_err(|error| error.to_string())
    }

    /// Changes files, and waits until the proxy of order-service has the change in force.
    async fn change(
        &self,
        edit: impl FnOnce() -> Result<(), super::super::Error>,
    ) -> Result<Duration, String> {
        let generation = || async {
            let json = self.admin("/config_dump").await?;
            json["configuration"]["generation"].as_u64().ok_or_else(|| format!("no generation in {json}"))
        };
        let before = generation().await?;
        let began = Instant::now();
        edit().map_err(|error| error.to_string())?;
        while generation().await? == before {
            if began.elapsed() > RELOAD {
                return Err(format!("a change of files is not in force after {} s", RELOAD.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(Duration::from_millis(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)))
    }

    async fn measure(&self, requests: u64) -> Result<Count, String> {
        let load = Load::start(4, self.order_port(), "product-service", "/api/products/7");
        load.more(requests).await;
        let count = load.stop().await;
        count.nothing_lost()?;
        Ok(count)
    }

    async fn admin(&self, path: &str) -> Result<Value, String> {
        let answer = Client::http1(self.port(ORDER, page::ADMIN)).get("localhost", path).await?;
        if answer.status != 200 {
            return Err(format!("{path} is answered {}: {}", answer.status, answer.text()));
        }
        Ok(answer.json())
    }
}

/// # Errors
///
/// When version 2 did not get about `percent` of a hundred requests: outside of four standard deviations and more.
fn near(count: &Count, percent: f64, tolerance: f64) -> Result<(), String> {
    let seen = count.percent(V2);
    if (seen - percent).abs() <= tolerance {
        return Ok(());
    }
    Err(format!("version 2 got {seen:.1} % instead of about {percent:.0} %: {}", count.shares()))
}
