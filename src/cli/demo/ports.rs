//! The ports of the demo: those written in its files, or others where they are taken.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// The port in use for each port that the files name.
#[derive(Debug)]
pub(super) struct Ports(BTreeMap<u16, u16>);

impl Ports {
    /// Chooses a free port for every one that these texts name. With `any`, every port is one that the kernel gives.
    ///
    /// # Errors
    ///
    /// When the kernel has no free port left.
    pub(super) fn choose<'a>(texts: impl Iterator<Item = &'a str>, any: bool) -> io::Result<Self> {
        // All are held until the last is chosen, so that none is given out twice.
        let mut held = Vec::new();
        let mut ports = BTreeMap::new();
        for written in texts.flat_map(numbers).filter_map(|(_, text)| text.parse::<u16>().ok()) {
            if ports.contains_key(&written) {
                continue;
            }
            let bind = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
            let listener = match bind(if any { 0 } else { written }) {
                Ok(listener) => listener,
                Err(_) => bind(0)?,
            };
            ports.insert(written, listener.local_addr()?.port());
            held.push(listener);
        }
        Ok(Self(ports))
    }

    /// The port in use for one that the files name.
    pub(super) fn of(&self, written: u16) -> u16 {
        self.0.get(&written).copied().unwrap_or(written)
    }

    /// Those that are not as written: the port of the files, and the one in use.
    pub(super) fn moved(&self) -> impl Iterator<Item = (u16, u16)> {
        self.0
            .iter()
            .map(|(written, chosen)| (*written, *chosen))
            .filter(|(written, chosen)| written != chosen)
    }

    /// A text with the ports in use in place of those that it names.
    pub(super) fn fill(&self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut end = 0;
        for (at, number) in numbers(text) {
            filled.push_str(&text[end..at]);
            filled.push_str(
                &number.parse().map_or_else(|_| number.to_owned(), |port| self.of(port).to_string()),
            );
            end = at + number.len();
        }
        filled.push_str(&text[end..]);
        filled
    }
}

/// The numbers of a text that are ports of the demo, and where they stand: five digits from 18000 on.
fn numbers(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    text.split(|c: char| !c.is_ascii_digit()).filter_map(move |number| {
        let start = at;
        at += number.len() + 1;
        (number.len() == 5 && number.starts_with("18")).then_some((start, number))
    })
}

#[cfg(test)]
mod tests {
    use super::Ports;
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn a_taken_port_is_replaced_wherever_it_is_written() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 18999)).unwrap();
        let text = "a: 127.0.0.1:18999 # 118999 1899\nb: {80: 18999, c: 18998}";
        let ports = Ports::choose([text].into_iter(), false).unwrap();
        let chosen = ports.of(18999);
        assert_ne!(chosen, 18999);
        let other = ports.of(18998);
        let expected = format!("a: 127.0.0.1:{chosen} # 118999 1899\nb: {{80: {chosen}, c: {other}}}");
        assert_eq!(ports.fill(text), expected);
        drop(taken);
    }
}
