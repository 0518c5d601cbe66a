//! A decision for people.

use super::{Decision, Subject};
use std::fmt;

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = if self.refused { "refused" } else { "passed" };
        write!(f, "decision {}: {outcome}", self.id)?;
        self.status.iter().try_for_each(|status| write!(f, " {status}"))?;
        self.grpc_status.iter().try_for_each(|status| write!(f, ", grpc-status {status}"))?;
        let mut flags = Vec::new();
        self.flags.write(&mut flags);
        writeln!(f, " {} {}", String::from_utf8_lossy(&flags), self.details)?;
        writeln!(f, "at          {}", self.shown_time())?;
        match &self.subject {
            Subject::Request { method, host, path, headers } => {
                writeln!(f, "request     {method} {host}{path}")?;
                for (name, value) in headers {
                    writeln!(f, "            {name}: {value}")?;
                }
            }
            Subject::Connection { protocol, server_name } => {
                write!(f, "connection  {protocol}")?;
                server_name.iter().try_for_each(|name| write!(f, " for {name}"))?;
                writeln!(f)?;
            }
        }
        write!(f, "from        {}", self.source)?;
        self.client.iter().try_for_each(|client| write!(f, ", client {client}"))?;
        writeln!(f, ", {}", self.peer.as_deref().unwrap_or("without an identity"))?;
        writeln!(f, "to          {} (listener {})", self.destination, self.listener)?;
        if let Some((issuer, subject)) = &self.token {
            writeln!(f, "token       of {issuer} for {subject}")?;
        }
        if let Some(route) = self.route.as_deref().filter(|route| !route.is_empty()) {
            writeln!(f, "route       {route}")?;
        }
        self.cluster.iter().try_for_each(|cluster| writeln!(f, "cluster     {cluster}"))?;
        for record in &self.records {
            writeln!(f, "{:<11} {}", record.layer, record.because)?;
            writeln!(f, "            {}", record.origin)?;
            let Some(ruling) = &record.ruling else { continue };
            if let Some(failed) = &ruling.failed {
                writeln!(f, "            {}", failed.key)?;
                writeln!(f, "            expected {}", failed.expected)?;
                writeln!(f, "            actual   {}", failed.actual)?;
            }
        }
        Ok(())
    }
}
