//! Paths and queries of requests: bytes out of percent escapes, and parameters by name.
//!
//! Off the data path.
//! Invariants: keys are bytes, not text; an escape that is none, a parameter that the route does not know or that comes
//! twice is an error, never ignored.
//! It knows no routes.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use axum::http::Uri;
use ringraft_net::wire::Consistency;

use crate::errors::Failure;

/// The parameters of a query.
#[derive(Debug, Default)]
pub(super) struct Query {
    values: BTreeMap<String, Vec<u8>>,
}

impl Query {
    /// Reads the query of a request whose route knows these parameters.
    pub(super) fn of(uri: &Uri, known: &[&str]) -> Result<Self, Failure> {
        let mut values = BTreeMap::new();
        for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = String::from_utf8(form_decoded(name)?).unwrap_or_default();
            if !known.contains(&name.as_str()) {
                let known = if known.is_empty() { String::from("none") } else { known.join(", ") };
                return Err(Failure::bad_request(format!("unknown query parameter {name:?}; there is: {known}")));
            }
            if values.insert(name.clone(), form_decoded(value)?).is_some() {
                return Err(Failure::bad_request(format!("query parameter {name:?} comes twice")));
            }
        }
        Ok(Self { values })
    }

    /// The bytes of a parameter.
    pub(super) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.values.get(name).map(Vec::as_slice)
    }

    /// The text of a parameter.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Failure> {
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Failure::bad_request(format!("{name} is not UTF-8")));
        self.bytes(name).map(text).transpose()
    }

    /// A parameter that is a number, at most `max`.
    pub(super) fn number(&self, name: &str, max: u64) -> Result<Option<u64>, Failure> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match u64::from_str(text) {
            Ok(number) if is_digits && number <= max => Ok(Some(number)),
            _ => Err(Failure::bad_request(format!("{name} = {text:?} is no whole number from 0 to {max}"))),
        }
    }

    /// `name=true`, or `name=false`, which is what is meant without it.
    pub(super) fn switch(&self, name: &str) -> Result<bool, Failure> {
        match self.text(name)? {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(Failure::bad_request(format!("{name} = {other:?} is neither true nor false"))),
        }
    }

    /// How fresh a read must be, and how old a stale one may be in milliseconds (0: any age).
    pub(super) fn freshness(&self) -> Result<(Consistency, u32), Failure> {
        let name = self.text("consistency")?.unwrap_or("linearizable");
        let consistency = Consistency::from_str(name)
            .map_err(|error| Failure::bad_request(format!("consistency = {name:?}: {error}")))?;
        let staleness = self.number("max_staleness_ms", u64::from(u32::MAX))?.unwrap_or(0);
        if staleness != 0 && consistency != Consistency::Stale {
            return Err(Failure::bad_request("max_staleness_ms goes with consistency=stale alone"));
        }
        Ok((consistency, u32::try_from(staleness).unwrap_or(u32::MAX)))
    }

    /// How long the cluster may take.
    pub(super) fn timeout(&self) -> Result<Option<Duration>, Failure> {
        match self.number("timeout_ms", 3_600_000)? {
            Some(0) => Err(Failure::bad_request("timeout_ms must be at least 1")),
            timeout => Ok(timeout.map(Duration::from_millis)),
        }
    }
}

/// The bytes of a part of a path.
pub(super) fn decoded(text: &str) -> Result<Vec<u8>, Failure> {
    let is_escape = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if text.split('%').skip(1).any(|rest| !is_escape(rest)) {
        return Err(Failure::bad_request(format!("{text:?}: `%` must be followed by two hexadecimal digits")));
    }
    Ok(percent_encoding::percent_decode_str(text).collect())
}

/// The same in a query, where a plus is a space.
fn form_decoded(text: &str) -> Result<Vec<u8>, Failure> {
    decoded(&text.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str, known: &[&str]) -> Result<Query, Failure> {
        Query::of(&format!("/x?{text}").parse().unwrap(), known)
    }

    #[test]
    fn parameters_are_bytes_known_and_given_once() {
        let found = query("key=a%2Fb+%ff&limit=5", &["key", "limit"]).unwrap();
        assert_eq!(found.bytes("key"), Some(&b"a/b \xff"[..]));
        assert_eq!((found.number("limit", 9), found.number("other", 9)), (Ok(Some(5)), Ok(None)));
        assert!(found.text("key").is_err());
        assert!(found.number("limit", 4).is_err());
        for text in ["other=1", "key=%2", "key=%zz", "key=%+1", "limit=1&limit=2"] {
            assert!(query(text, &["key", "limit"]).is_err(), "{text}");
        }
        assert!(query("", &[]).is_ok() && Query::of(&"/x".parse().unwrap(), &[]).is_ok());
    }

    #[test]
    fn numbers_and_switches_are_read_strictly() {
        for text in ["limit=", "limit=-1", "limit=%2B1", "limit=1.5", "limit=99999999999999999999"] {
            assert!(query(text, &["limit"]).unwrap().number("limit", u64::MAX).is_err(), "{text}");
        }
        let switch = |text| query(text, &["keys_only"]).unwrap().switch("keys_only");
        assert_eq!((switch(""), switch("keys_only=false"), switch("keys_only=true")), (Ok(false), Ok(false), Ok(true)));
        assert!(switch("keys_only=yes").is_err() && switch("keys_only").is_err());
    }

    #[test]
    fn freshness_has_names_and_only_stale_reads_an_age() {
        const KNOWN: [&str; 2] = ["consistency", "max_staleness_ms"];
        let freshness = |text| query(text, &KNOWN).unwrap().freshness();
        assert_eq!(freshness(""), Ok((Consistency::Linearizable, 0)));
        assert_eq!(freshness("consistency=lease"), Ok((Consistency::Lease, 0)));
        assert_eq!(freshness("consistency=stale&max_staleness_ms=250"), Ok((Consistency::Stale, 250)));
        assert!(freshness("consistency=eventual").is_err());
        assert!(freshness("max_staleness_ms=250").is_err());
    }
}
