//! Deadlines: what `grpc-timeout` of a call says, and what is made of it.
//!
//! Off the data path.
//! Invariants: no call waits longer than the gateway's own bound, whatever it asks for; a call that is not answered in time
//! ends a little before its deadline, so that its client, which counts too, hears what may have become of it.

use std::time::Duration;

use tonic::Status;
use tonic::metadata::MetadataMap;

use super::status;

/// How much sooner than asked for a call ends: a twentieth of its time, at most this.
const EARLY_MAX: Duration = Duration::from_millis(100);

/// How long this call may take; `default` unless it says less.
pub(super) fn of(metadata: &MetadataMap, default: Duration) -> Result<Duration, Status> {
    let Some(value) = metadata.get("grpc-timeout") else { return Ok(default) };
    match value.to_str().ok().and_then(parse) {
        Some(timeout) => Ok((timeout - EARLY_MAX.min(timeout / 20)).min(default)),
        None => Err(status::bad_request("grpc-timeout is not 1 to 8 digits and one of H, M, S, m, u, n")),
    }
}

/// `TimeoutValue TimeoutUnit` of gRPC's protocol over HTTP/2.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_protocol_says() {
        for (text, expected) in [
            ("1H", Duration::from_secs(3_600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("250m", Duration::from_millis(250)),
            ("7u", Duration::from_micros(7)),
            ("99999999n", Duration::from_nanos(99_999_999)),
            ("99999999H", Duration::from_secs(99_999_999 * 3_600)),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        for text in ["", "S", "1", "1s", "-1S", "1.5S", "123456789S", "1 S", "1é"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn never_longer_than_the_gateway_waits() {
        let default = Duration::from_secs(5);
        let with = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            of(&metadata, default)
        };
        assert_eq!(of(&MetadataMap::new(), default).unwrap(), default);
        assert_eq!(with("1S").unwrap(), Duration::from_millis(950));
        assert_eq!(with("4S").unwrap(), Duration::from_millis(3_900));
        assert_eq!(with("0n").unwrap(), Duration::ZERO);
        assert_eq!(with("1H").unwrap(), default);
        assert_eq!(with("soon").unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}
