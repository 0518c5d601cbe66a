//! Test files: what they say, and what is wrong with them.

use crate::config::decode::documents;
use crate::config::finding::{Finding, Severity};
use crate::config::resources::Placement;
use crate::config::spans::Place;
use crate::explain::{Question, QuestionError, Tls, Verdict};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// A file of tests.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct File {
    tests: Vec<Written>,
}

/// A test as it is written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct Written {
    name: String,
    to: String,
    from: Option<String>,
    request: Request,
    expect: Expect,
}

/// The request of a test.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Request {
    /// `GET` when absent.
    pub method: Option<String>,
    /// Path and query, `/` when absent.
    pub path: Option<String>,
    /// The host that is asked for; absent: the service.
    pub host: Option<String>,
    /// The port of the service; absent: its first.
    pub port: Option<u16>,
    /// Who asks, as its certificate proves: `cluster.local/ns/shop/sa/cart`. Absent: nobody in particular, in plain text.
    pub principal: Option<String>,
    /// Claims of a token, taken as if it had been verified.
    pub claims: Option<Map<String, Value>>,
    /// A token that has to hold: itself, or the name of a file beside the test file.
    pub token: Option<String>,
    /// Headers.
    pub headers: BTreeMap<String, String>,
    /// Where the client calls from.
    #[serde(rename = "clientIP")]
    pub client_ip: Option<String>,
    /// When it is asked, in RFC 3339; absent: now.
    pub time: Option<String>,
    /// How the client connects; absent: with a certificate where there is a principal, else in plain text.
    pub tls: Option<Tls>,
}

/// What has to become of it; what is absent may be anything.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Expect {
    /// Whether it may pass.
    pub decision: Option<Verdict>,
    /// Who decides: `AuthorizationPolicy shop/cart rule 0`, or without the rule.
    pub by: Option<String>,
    /// The status of an answer that the proxy makes itself.
    pub status: Option<u16>,
    /// The name of the route that the caller's side takes.
    pub route: Option<String>,
    /// The subset that it leads to.
    pub subset: Option<String>,
    /// Refused until limits exist.
    limit: Option<Value>,
    /// Refused until retries exist.
    retry: Option<Value>,
}

/// A test that can be run.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name, unique among all that are run.
    pub name: String,
    /// Whose inbound side is asked: `payment-service.ecommerce`.
    pub to: String,
    /// Whose outbound side is asked about routes.
    pub from: Option<String>,
    /// The request.
    pub request: Request,
    /// What has to become of it.
    pub expect: Expect,
    /// Where it stands.
    pub place: Place,
    /// The token, read from its file where it names one.
    token: Option<String>,
}

impl Case {
    /// The question of a client that connects to `port` and asks for `service_port` of a host.
    ///
    /// # Errors
    ///
    /// A [`QuestionError`]; none once [`read`] has taken the case.
    pub fn question(&self, host: &str, service_port: u16, port: u16) -> Result<Question, QuestionError> {
        let request = &self.request;
        let path = request.path.as_deref().unwrap_or("/");
        let asked = request.host.clone().unwrap_or_else(|| match service_port {
            80 => host.to_owned(),
            other => format!("{host}:{other}"),
        });
        let lines: Vec<String> =
            request.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let named = request.headers.keys().any(|name| name.eq_ignore_ascii_case("host"));
        let host_line = (!named).then(|| format!("host: {asked}"));
        let method = request.method.as_deref().unwrap_or("GET");
        let url = format!("http://{host}:{port}{path}");
        let mut question = Question::parse(method, &url, lines.iter().chain(&host_line).map(String::as_str))?;
        if let Some(principal) = &request.principal {
            question = question.by(principal)?;
        }
        question = question.over(request.tls.unwrap_or(match request.principal {
            Some(_) => Tls::Mutual,
            None => Tls::None,
        }));
        if let Some(client) = &request.client_ip {
            let client = client.parse().map_err(|_| QuestionError::Client(client.clone()))?;
            question = question.from(client);
        }
        if let Some(claims) = &request.claims {
            question = question.claiming(claims.clone());
        }
        if let Some(token) = &self.token {
            question = question.with_token(token)?;
        }
        if let Some(time) = &request.time {
            question = question.at(time)?;
        }
        question.check()
    }

    /// When it is asked, if it says so.
    pub(super) fn time(&self) -> Option<SystemTime> {
        self.request.time.as_ref()?;
        self.question("any", 80, 80).ok().map(|question| question.time())
    }
}

/// Reads test files, and says everything that is wrong with them. The cases are those of files without an error.
#[must_use]
pub fn read(paths: &[PathBuf]) -> (Vec<Case>, Vec<Finding>) {
    let (mut cases, mut findings) = (Vec::new(), Vec::new());
    let mut places: HashMap<String, Place> = HashMap::new();
    for path in paths {
        let file: Arc<Path> = path.as_path().into();
        let place = Place { file: Arc::clone(&file), line: 1, column: 1 };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(wrong) => {
                findings.push(error(place, "", format!("cannot be read: {wrong}"), ""));
                continue;
            }
        };
        let (documents, wrong) = documents::<File>(&file, &text);
        findings.extend(wrong);
        let before = cases.len();
        for (document, placement) in documents {
            for (at, written) in document.tests.into_iter().enumerate() {
                let mut reader = Reader { placement: &placement, at, findings: &mut findings };
                if let Some(case) = reader.case(written, path) {
                    if let Some(other) = places.insert(case.name.clone(), case.place.clone()) {
                        reader.error(
                            "name",
                            format!("is the name of the test at {other}, too"),
                            "give each its own",
                        );
                    }
                    cases.push(case);
                }
            }
        }
        if cases.len() == before && findings.is_empty() {
            findings.push(error(place, "tests", "holds no tests".to_owned(), "write a list under `tests:`"));
        }
    }
    (cases, findings)
}

fn error(place: Place, field: &str, message: String, hint: &str) -> Finding {
    Finding {
        severity: Severity::Error,
        code: "test",
        object: None,
        field: field.to_owned(),
        place: Some(place),
        message,
        hint: hint.to_owned(),
    }
}

/// Looks at one test.
struct Reader<'a> {
    placement: &'a Placement,
    at: usize,
    findings: &'a mut Vec<Finding>,
}

impl Reader<'_> {
    fn error(&mut self, field: &str, message: String, hint: &str) {
        let field = format!("tests[{}].{field}", self.at);
        self.findings.push(error(self.placement.place(&field), &field, message, hint));
    }

    fn case(&mut self, written: Written, path: &Path) -> Option<Case> {
        let before = self.findings.len();
        if written.name.is_empty() {
            self.error("name", "is missing".to_owned(), "say in a sentence what the test holds on to");
        }
        if written.to.is_empty() {
            self.error("to", "is missing".to_owned(), "write the service that is called, as in `cart.shop`");
        }
        for (there, name) in
            [(written.expect.limit.is_some(), "limit"), (written.expect.retry.is_some(), "retry")]
        {
            if there {
                let message = format!("`{name}` cannot be tested: nothing of the kind is enforced yet");
                self.error(&format!("expect.{name}"), message, "remove it");
            }
        }
        let Expect { decision, by, status, route, subset, .. } = &written.expect;
        let says =
            decision.is_some() || by.is_some() || status.is_some() || route.is_some() || subset.is_some();
        if !says && self.findings.len() == before {
            let message = "expects nothing, so that the test cannot fail".to_owned();
            self.error("expect", message, "write `decision: Allow` or `decision: Deny`");
        }
        let token = self.token(&written.request, path);
        let case = Case {
            place: self.placement.place(&format!("tests[{}]", self.at)),
            name: written.name,
            to: written.to,
            from: written.from,
            request: written.request,
            expect: written.expect,
            token,
        };
        if let Err(wrong) = case.question("any", 80, 80) {
            let field = match &wrong {
                QuestionError::Method(_) => "request.method",
                QuestionError::Url(_) => "request.path",
                QuestionError::Header(_) => "request.headers",
                QuestionError::Principal(_) => "request.principal",
                QuestionError::Token => "request.token",
                QuestionError::Claims(_) => "request.claims",
                QuestionError::Time(_) => "request.time",
                QuestionError::Client(_) => "request.clientIP",
                QuestionError::Contradiction(_) => "request",
            };
            self.error(field, wrong.to_string(), "");
        }
        (self.findings.len() == before).then_some(case)
    }

    /// The token, out of its file where it is no token itself.
    fn token(&mut self, request: &Request, path: &Path) -> Option<String> {
        let written = request.token.as_deref()?;
        let file = path.parent().unwrap_or(Path::new("")).join(written);
        if !file.is_file() {
            return Some(written.to_owned());
        }
        match std::fs::read_to_string(&file) {
            Ok(text) => Some(text.trim().to_owned()),
            Err(wrong) => {
                self.error("request.token", format!("{}: {wrong}", file.display()), "");
                None
            }
        }
    }
}
