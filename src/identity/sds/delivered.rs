//! What was delivered so far, and what of it is in force.

use std::time::SystemTime;

use super::Names;
use super::secrets::Parts;
use crate::identity::error::Error;
use crate::identity::held::{Held, Offer};

/// What was delivered so far. Servers deliver certificate and roots apart, and one that is broken must not keep out the other.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    /// What is in force.
    good: Parts,
    /// The last of each.
    newest: Parts,
    /// Whether the newest is not what is in force.
    kept_out: bool,
}

impl Delivered {
    /// Offers what a response held, together with what came before it. Blocks.
    ///
    /// # Errors
    /// Why it is kept out. What it was delivered with may make it good later.
    pub(super) fn take(
        &mut self,
        held: &Held,
        parts: &Parts,
        names: &Names,
        now: SystemTime,
    ) -> Result<(), String> {
        self.newest = self.newest.with(parts);
        if self.newest.missing(names).is_some() {
            return Ok(());
        }
        let Err(error) = sound(held, &self.newest, now) else {
            return self.offer(held, now);
        };
        let partly = self.good.with(parts);
        self.kept_out = true;
        let good = partly.missing(names).is_none() && sound(held, &partly, now).is_ok();
        let text = error.to_string();
        if good {
            held.offer(partly.pem(), now);
            self.good = partly;
        }
        // Said in any case: the server delivers something that is not in force.
        held.offer(Err(error), now);
        if good { Ok(()) } else { Err(text) }
    }

    /// The name of what was not delivered yet.
    pub(super) fn missing<'a>(&self, names: &'a Names) -> Option<&'a str> {
        self.newest.missing(names)
    }

    /// Offers the newest again where the clock or a file may have made another of it. Blocks; all of it has to be there.
    pub(super) fn again(&mut self, held: &Held, now: SystemTime) {
        if self.kept_out || self.newest.has_files() {
            // What is wrong with it is said there.
            let _ = self.offer(held, now);
        }
    }

    fn offer(&mut self, held: &Held, now: SystemTime) -> Result<(), String> {
        self.kept_out = held.offer(self.newest.pem(), now) == Offer::Refused;
        if self.kept_out {
            return Err(held.status(now).problem.unwrap_or_default());
        }
        self.good = self.newest.clone();
        Ok(())
    }
}

fn sound(held: &Held, parts: &Parts, now: SystemTime) -> Result<(), Error> {
    parts.pem().and_then(|pem| held.check(&pem, now))
}
