//! What is wrong with the configuration, where, and what to write instead.

use std::fmt;

use serde::Serialize;

use super::resources::ObjectKey;
use super::spans::Place;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object is rejected.
    Error,
    /// The object is used, and not all of it does what it says.
    Warning,
    /// Good to know.
    Info,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        })
    }
}

/// One thing that is wrong, or good to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A stable name in kebab-case, for scripts.
    pub code: &'static str,
    /// The object, when it is known which.
    pub object: Option<ObjectKey>,
    /// The path of the field, empty for the whole object.
    pub field: String,
    /// Where it stands.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What to write instead, empty when there is nothing to do.
    pub hint: String,
}

impl Finding {
    /// The order in which findings are shown: by file and line, then by severity and text.
    #[must_use]
    pub fn order(&self, other: &Self) -> std::cmp::Ordering {
        let key = |finding: &Self| (finding.place.clone(), finding.severity, finding.object.clone());
        key(self)
            .cmp(&key(other))
            .then_with(|| (&self.field, &self.message).cmp(&(&other.field, &other.message)))
    }

    /// The finding on one line, without its severity.
    #[must_use]
    pub fn line(&self) -> Line<'_> {
        Line(self)
    }

    fn write_body(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        match &self.place {
            Some(place) => write!(f, " ({place})"),
            None => Ok(()),
        }
    }
}

/// A finding on one line, for the log.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a>(&'a Finding);

/// `VirtualService shop/cart: spec.http[0].route: ... (shop.yaml:12:5) | hint: ...`. The line of the log has the severity already.
impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line(finding) = self;
        finding.write_body(f)?;
        if finding.hint.is_empty() { Ok(()) } else { write!(f, " | hint: {}", finding.hint) }
    }
}

/// `error: VirtualService shop/cart: spec.http[0].route: ... (shop.yaml:12:5)`, then the hint on a line of its own.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.severity)?;
        self.write_body(f)?;
        if !self.hint.is_empty() {
            write!(f, "\n  hint: {}", self.hint)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Finding, Severity};
    use crate::config::resources::{Kind, ObjectKey};
    use crate::config::spans::Place;

    #[test]
    fn a_finding_names_object_field_place_and_remedy() {
        let finding = Finding {
            severity: Severity::Error,
            code: "no-route",
            object: Some(ObjectKey {
                kind: Kind::VirtualService,
                namespace: "shop".into(),
                name: "cart".into(),
            }),
            field: "spec.http[0].route".into(),
            place: Some(Place { file: Path::new("shop.yaml").into(), line: 12, column: 5 }),
            message: "has no destination".into(),
            hint: "add one".into(),
        };
        assert_eq!(
            finding.to_string(),
            "error: VirtualService shop/cart: spec.http[0].route: has no destination (shop.yaml:12:5)\n  hint: add one"
        );
        assert_eq!(
            finding.line().to_string(),
            "VirtualService shop/cart: spec.http[0].route: has no destination (shop.yaml:12:5) | hint: add one"
        );
        let json = serde_json::to_value(&finding).unwrap();
        assert_eq!(json["severity"], "error");
        assert_eq!(json["object"], "VirtualService shop/cart");
        assert_eq!(json["place"], "shop.yaml:12:5");
    }
}
