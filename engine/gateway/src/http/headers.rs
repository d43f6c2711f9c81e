//! Heads of requests: which version a key must have, and which form of an answer is wanted.
//!
//! Off the data path.
//! Invariant: a condition that cannot be kept is an error, never ignored.
//! It reads no values.

use axum::http::header::{ACCEPT, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName};

use crate::errors::Failure;

/// Which version of a key a write wants to meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// Any, or none.
    Any,
    /// This one; 0: the key must be absent.
    Version(u64),
}

impl Condition {
    /// What `If-Match` and `If-None-Match` say to a write.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        match (single(headers, &IF_MATCH)?, single(headers, &IF_NONE_MATCH)?) {
            (None, None) => Ok(Self::Any),
            (Some(tag), None) => match version(tag) {
                Some(version) if version > 0 => Ok(Self::Version(version)),
                _ => Err(Failure::bad_request("If-Match takes one version, as ETag gave it: If-Match: \"4711\"")),
            },
            (None, Some("*")) => Ok(Self::Version(0)),
            (None, Some(_)) => Err(Failure::bad_request("If-None-Match takes * on a write: the key must be absent")),
            (Some(_), Some(_)) => Err(Failure::bad_request("If-Match and If-None-Match exclude each other")),
        }
    }
}

/// Whether the reader has this version already.
pub(super) fn has_version(headers: &HeaderMap, found: u64) -> bool {
    let tags = headers.get_all(IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
    tags.flat_map(|tags| tags.split(',')).any(|tag| {
        let tag = tag.trim();
        tag == "*" || version(tag.trim_start_matches("W/")) == Some(found)
    })
}

/// Whether JSON is wanted where a line of text would do.
pub(super) fn wants_json(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|types| types.split(',')).any(|accepted| {
        let essence = accepted.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json")
    })
}

/// A header that may come once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Failure> {
    let mut values = headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match value.to_str() {
            Ok(text) => Ok(Some(text.trim())),
            Err(_) => Err(Failure::bad_request(format!("{name} is no text"))),
        },
        (Some(_), Some(_)) => Err(Failure::bad_request(format!("{name} comes twice"))),
    }
}

/// The version in a tag: `"4711"`.
fn version(tag: &str) -> Option<u64> {
    let digits = tag.strip_prefix('"')?.strip_suffix('"')?;
    let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn conditions_of_writes() {
        let condition = |pairs: &[(HeaderName, &str)]| Condition::of(&headers(pairs));
        assert_eq!(condition(&[]), Ok(Condition::Any));
        assert_eq!(condition(&[(IF_MATCH, "\"65537\"")]), Ok(Condition::Version(65_537)));
        assert_eq!(condition(&[(IF_NONE_MATCH, "*")]), Ok(Condition::Version(0)));
        for tag in
            ["*", "65537", "\"\"", "\"0\"", "\"+1\"", "W/\"1\"", "\"1\", \"2\"", "\"x\"", "\"99999999999999999999\""]
        {
            assert!(condition(&[(IF_MATCH, tag)]).is_err(), "{tag}");
        }
        assert!(condition(&[(IF_NONE_MATCH, "\"1\"")]).is_err());
        assert!(condition(&[(IF_NONE_MATCH, "*"), (IF_MATCH, "\"1\"")]).is_err());
    }

    #[test]
    fn readers_that_have_a_version() {
        for (tags, has) in [("\"7\"", true), ("\"6\", W/\"7\"", true), ("*", true), ("\"6\"", false), ("7", false)] {
            assert_eq!(has_version(&headers(&[(IF_NONE_MATCH, tags)]), 7), has, "{tags}");
        }
    }

    #[test]
    fn json_is_wanted_when_it_is_named() {
        for (accept, wanted) in
            [("*/*", false), ("application/json", true), ("text/plain, Application/JSON;q=0.9", true)]
        {
            assert_eq!(wants_json(&headers(&[(ACCEPT, accept)])), wanted, "{accept}");
        }
    }
}
