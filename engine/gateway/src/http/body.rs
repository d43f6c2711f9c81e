//! Bodies of requests: read up to a bound and within a time, and what their JSON may say.
//!
//! Off the data path.
//! Invariants: never more than the bound is held; a member that no route knows is an error.
//! It knows no routes.

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, Request};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use tokio::time::timeout;

use crate::errors::{Code, Failure};
use crate::settings::Settings;

/// The bytes of a request's body.
pub(super) async fn read(request: Request<Body>, settings: &Settings) -> Result<Bytes, Failure> {
    let max = settings.body_bytes_max;
    let too_large = || Failure::new(Code::TooLarge, format!("the body is longer than {max} bytes"));
    let told = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if told.is_some_and(|length| length > max) {
        return Err(too_large());
    }
    let collected = Limited::new(request.into_body(), max).collect();
    match timeout(settings.body_timeout, collected).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Failure::bad_request(format!("the body broke off: {error}"))),
        Err(_) => {
            let message = format!("the body was not there within {:?}", settings.body_timeout);
            Err(Failure::new(Code::RequestTimeout, message))
        }
    }
}

/// What a body is, by its `Content-Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// JSON: said so, not said at all, or what `curl -d` says by itself.
    Json,
    /// A value as it is.
    Raw,
}

/// What the body of a request is.
pub(super) fn kind(headers: &HeaderMap) -> Result<Kind, Failure> {
    let Some(given) = headers.get(CONTENT_TYPE) else { return Ok(Kind::Json) };
    let text = given.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" | "application/x-www-form-urlencoded" => Ok(Kind::Json),
        "application/octet-stream" | "text/plain" => Ok(Kind::Raw),
        _ => {
            let message =
                "Content-Type must be application/json, or application/octet-stream or text/plain for a value";
            Err(Failure::new(Code::UnsupportedMediaType, message))
        }
    }
}

/// Reads a JSON object.
pub(super) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    // Whoever reads a struct takes an array of its members too.
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first.is_some_and(|first| *first != b'{') {
        return Err(Failure::bad_request("the body is no JSON object"));
    }
    serde_json::from_slice(bytes).map_err(|error| Failure::bad_request(format!("the body: {error}")))
}

/// The same of routes that take nothing but JSON.
pub(super) fn object_of<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<T, Failure> {
    if kind(headers)? == Kind::Raw {
        return Err(Failure::new(Code::UnsupportedMediaType, "Content-Type must be application/json"));
    }
    json(bytes)
}

/// The same of routes whose body may be empty: an empty object then.
pub(super) fn object_or_nothing<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<T, Failure> {
    let is_empty = bytes.iter().all(u8::is_ascii_whitespace);
    object_of(headers, if is_empty { b"{}" } else { bytes })
}

/// What the body of a single write may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Write {
    /// Of `/kv/put` and `/kv/del`.
    #[serde(default, deserialize_with = "some")]
    pub(super) key: Option<String>,
    /// The same, any bytes.
    #[serde(default, deserialize_with = "some")]
    pub(super) key_base64: Option<String>,
    /// The new value.
    #[serde(default, deserialize_with = "some")]
    pub(super) value: Option<String>,
    /// The same, any bytes.
    #[serde(default, deserialize_with = "some")]
    pub(super) value_base64: Option<String>,
    /// The value it must have; null: it must be absent.
    #[serde(default, deserialize_with = "present")]
    pub(super) expected: Option<Option<String>>,
    /// The value it must have, any bytes.
    #[serde(default, deserialize_with = "some")]
    pub(super) expected_base64: Option<String>,
}

/// What is there if it is named at all: null is not nothing, it is an error.
pub(super) fn some<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// Tells null from nothing.
pub(super) fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// One of a text and its base64; `None`: neither.
pub(super) fn bytes_of(name: &str, text: Option<String>, base64: Option<String>) -> Result<Option<Vec<u8>>, Failure> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(Failure::bad_request(format!("{name} and {name}Base64 exclude each other"))),
        (Some(text), None) => Ok(Some(text.into_bytes())),
        (None, Some(base64)) => match STANDARD.decode(base64) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => Err(Failure::bad_request(format!("{name}Base64: {error}"))),
        },
        (None, None) => Ok(None),
    }
}

impl Write {
    /// The key, if the body names one.
    pub(super) fn take_key(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        bytes_of("key", self.key.take(), self.key_base64.take())
    }

    /// The new value, which must be there.
    pub(super) fn take_value(&mut self) -> Result<Vec<u8>, Failure> {
        let value = bytes_of("value", self.value.take(), self.value_base64.take())?;
        value.ok_or_else(|| Failure::bad_request("the body has no \"value\""))
    }

    /// What the value must be: `None`: anything; `Some(None)`: nothing.
    pub(super) fn take_expected(&mut self) -> Result<Option<Option<Vec<u8>>>, Failure> {
        match (self.expected.take(), self.expected_base64.take()) {
            (Some(None), None) => Ok(Some(None)),
            (expected, base64) => Ok(bytes_of("expected", expected.flatten(), base64)?.map(Some)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(text: &str) -> Result<Write, Failure> {
        json(text.as_bytes())
    }

    #[test]
    fn writes_are_read_strictly() {
        let mut body = write(r#"{"key":"k","value":"ä","expected":null}"#).unwrap();
        assert_eq!(body.take_key(), Ok(Some(b"k".to_vec())));
        assert_eq!(body.take_value(), Ok("ä".as_bytes().to_vec()));
        assert_eq!(body.take_expected(), Ok(Some(None)));
        let mut body = write(r#"{"valueBase64":"/w==","expectedBase64":"AA=="}"#).unwrap();
        assert_eq!(body.take_value(), Ok(vec![255]));
        assert_eq!(body.take_expected(), Ok(Some(Some(vec![0]))));
        let mut body = write("{}").unwrap();
        assert_eq!((body.take_key(), body.take_expected()), (Ok(None), Ok(None)));
        assert!(body.take_value().is_err());
        for text in [
            "",
            "{",
            "[]",
            "1",
            r#"{"value":1}"#,
            r#"{"key":null,"value":"v"}"#,
            r#"{"values":"x"}"#,
            r#"{"value":"a","value":"b"}"#,
            "{}{}",
            r#"["k",null,"v",null,null,null]"#,
        ] {
            assert!(write(text).is_err(), "{text}");
        }
        assert!(write(r#"{"value":"a","valueBase64":"AA=="}"#).unwrap().take_value().is_err());
        assert!(write(r#"{"valueBase64":"A"}"#).unwrap().take_value().is_err());
    }

    #[test]
    fn types_of_bodies() {
        let kind_of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, text.parse().unwrap());
            kind(&headers)
        };
        assert_eq!(kind(&HeaderMap::new()), Ok(Kind::Json));
        assert_eq!(kind_of("Application/JSON; charset=utf-8"), Ok(Kind::Json));
        assert_eq!(kind_of("application/x-www-form-urlencoded"), Ok(Kind::Json));
        assert_eq!(kind_of("application/octet-stream"), Ok(Kind::Raw));
        assert_eq!(kind_of("text/plain;charset=utf-8"), Ok(Kind::Raw));
        assert_eq!(kind_of("application/xml").unwrap_err().code, Code::UnsupportedMediaType);
    }
}
