//! `sidegate explain ID`: what a running proxy remembers of one of its decisions.

use super::probe::ask;
use super::{Output, USAGE, out};
use filter_api::DecisionId;
use http::Uri;
use std::process::ExitCode;
use std::time::Duration;

/// Where a proxy's admin pages are when its Proxy says nothing else.
pub(super) const ADMIN: &str = "127.0.0.1:15000";

/// For all of it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ends with 0 when the proxy knows the decision, with 1 when it does not or does not answer.
pub(super) fn explain(id: &str, admin: &str, output: Output) -> ExitCode {
    let usage = |text: String| {
        out::complain(text);
        ExitCode::from(USAGE)
    };
    let Ok(id) = id.parse::<DecisionId>() else {
        return usage(format!(
            "`{id}` is no id of a decision, which has 16 letters and digits; to ask about a request, write METHOD URL and --config"
        ));
    };
    let format = if output == Output::Text { "?format=text" } else { "" };
    let authority = admin.strip_prefix("http://").unwrap_or(admin).trim_end_matches('/');
    let target = format!("http://{authority}/explain/{id}{format}").parse::<Uri>().ok();
    let Some(target) = target.filter(|target| target.host().is_some_and(|host| !host.is_empty())) else {
        return usage(format!("--admin: `{admin}` is no address; write it as in {ADMIN}"));
    };
    match ask(&target, PATIENCE) {
        Ok((200, text)) => {
            out::say(text.trim_end());
            ExitCode::SUCCESS
        }
        Ok((_, text)) => {
            out::complain(text.trim_end());
            ExitCode::FAILURE
        }
        Err(error) => {
            out::complain(format_args!(
                "no proxy answers at {admin}: {error}. Is it running there? Name its admin address with --admin or SIDEGATE_ADMIN"
            ));
            ExitCode::FAILURE
        }
    }
}
