//! The domains of a virtual host.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::SplitTerminator;

/// Domains in one piece of memory, each followed by a line break: a mesh has six times as many as services.
///
/// One with a line break in it is left out: no authority is like it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Domains(Box<str>);

impl Domains {
    /// The domains in their order.
    pub fn iter(&self) -> SplitTerminator<'_, char> {
        self.0.split_terminator('\n')
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<S: AsRef<str>> FromIterator<S> for Domains {
    fn from_iter<I: IntoIterator<Item = S>>(domains: I) -> Self {
        let mut text = String::new();
        for domain in domains {
            let domain = domain.as_ref();
            if !domain.contains('\n') {
                text.push_str(domain);
                text.push('\n');
            }
        }
        Self(text.into())
    }
}

impl<'a> IntoIterator for &'a Domains {
    type Item = &'a str;
    type IntoIter = SplitTerminator<'a, char>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Debug for Domains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl Serialize for Domains {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

impl<'de> Deserialize<'de> for Domains {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<String>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::Domains;

    #[test]
    fn domains_are_those_that_were_put_in() {
        let domains: Domains = ["cart", "cart:80", "*", "a\nb"].into_iter().collect();
        assert_eq!(domains.iter().collect::<Vec<_>>(), ["cart", "cart:80", "*"]);
        let text = serde_json::to_string(&domains).unwrap();
        assert_eq!(
            (text.as_str(), serde_json::from_str(&text).unwrap()),
            (r#"["cart","cart:80","*"]"#, domains)
        );
        assert!(Domains::default().is_empty() && Domains::default().iter().next().is_none());
    }
}
