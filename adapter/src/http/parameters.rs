//! The parameters of a query, each once and by a known name. A wrong one is 400.

use std::collections::BTreeMap;

use serve::answer::Refusal;
use serve::call::Call;
use serve::http::StatusCode;

use crate::ledger::Family;
use crate::model::instant;

/// What was given, taken out one by one.
#[derive(Debug)]
pub(super) struct Parameters {
    given: BTreeMap<String, String>,
}

impl Parameters {
    /// Of a request that may give these.
    pub(super) fn of(call: &Call, known: &[&str]) -> Result<Parameters, Refusal> {
        let mut given: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(call.query().unwrap_or_default().as_bytes()) {
            if !known.contains(&&*name) {
                let known = known.join(", ");
                return Err(wrong(format!("parameter {name:?} is none of {known}")));
            }
            if given.insert(name.to_string(), value.into_owned()).is_some() {
                return Err(wrong(format!("parameter {name} came more than once")));
            }
        }
        Ok(Parameters { given })
    }

    /// A text that is not empty.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.given.remove(name).filter(|value| !value.is_empty())
    }

    /// A text that must be given.
    pub(super) fn needed(&mut self, name: &str) -> Result<String, Refusal> {
        self.text(name).ok_or_else(|| wrong(format!("parameter {name} is missing")))
    }

    /// A time; unix milliseconds.
    pub(super) fn time(&mut self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(value) = self.text(name) else { return Ok(None) };
        // In a query a plus that is not written %2B means a space: 2026-11-01T00:00:00+08:00.
        let value = if value.contains('T') { value.replace(' ', "+") } else { value };
        let time = instant::parse(&value).map_err(|error| wrong(format!("{name}: {error}")))?;
        Ok(Some(time))
    }

    /// Families, by a list of names with commas between them; all where none is given.
    pub(super) fn families(&mut self, name: &str) -> Result<Vec<Family>, Refusal> {
        let names = self.text(name);
        names.map_or(Ok(Family::ALL.to_vec()), |names| Family::list(&names)).map_err(wrong)
    }
}

/// A fault of the client's.
pub(super) fn wrong(text: String) -> Refusal {
    Refusal::client(StatusCode::BAD_REQUEST, text)
}
