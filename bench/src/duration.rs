//! Durations as people write them: `15s`, `500ms`, `2m`, `1h30m`, `1.5s`.
//!
//! Off the data path. A bare number is refused, because its unit would be a guess.

use std::time::Duration;

use thiserror::Error;

/// Why a text is not a duration.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DurationError {
    /// Nothing there.
    #[error("a duration is expected, for example 15s")]
    Empty,
    /// A number is missing or malformed.
    #[error("`{0}` is not a number followed by a unit (us, ms, s, m, h), for example 15s or 1m30s")]
    Number(String),
    /// The unit is missing or unknown.
    #[error("`{0}` is not a unit of time: use us, ms, s, m or h, for example 15s")]
    Unit(String),
    /// More than a duration may be.
    #[error("the duration is too long: at most 24h")]
    TooLong,
}

/// The longest duration a flag takes, seconds.
const SECONDS_MAX: f64 = 86_400.0;

/// Parses a sum of numbers with units.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(DurationError::Empty);
    }
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| DurationError::Number(text.to_owned()))?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !(c.is_alphabetic())).unwrap_or(rest.len());
        let scale = match &rest[..letters] {
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" | "sec" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            unit => return Err(DurationError::Unit(unit.to_owned())),
        };
        rest = rest[letters..].trim_start();
        seconds += number * scale;
        if seconds > SECONDS_MAX {
            return Err(DurationError::TooLong);
        }
    }
    Ok(Duration::from_nanos((seconds * 1e9).round() as u64))
}

/// A duration in the shortest exact unit, the inverse of [`parse`] for what people write.
pub fn format(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    match nanoseconds {
        0 => "0s".to_owned(),
        n if n % 1_000_000_000 == 0 => format!("{}s", n / 1_000_000_000),
        n if n % 1_000_000 == 0 => format!("{}ms", n / 1_000_000),
        n => format!("{}us", n / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, milliseconds) in [
            ("15s", 15_000),
            ("500ms", 500),
            ("2m", 120_000),
            ("1h30m", 5_400_000),
            ("1m 30s", 90_000),
            ("1.5s", 1_500),
            ("0s", 0),
            ("3s", 3_000),
        ] {
            let expected = Duration::from_millis(milliseconds);
            let got = parse(text);
            assert_eq!(got, Ok(expected), "{text}");
        }
        assert_eq!(parse("250us"), Ok(Duration::from_micros(250)));
    }

    #[test]
    fn refuses_guesses() {
        assert_eq!(parse(""), Err(DurationError::Empty));
        assert_eq!(parse("15"), Err(DurationError::Unit(String::new())));
        assert_eq!(parse("15 parsecs"), Err(DurationError::Unit(String::new())));
        assert_eq!(parse("15d"), Err(DurationError::Unit("d".to_owned())));
        assert_eq!(parse("s"), Err(DurationError::Number("s".to_owned())));
        assert_eq!(parse("-1s"), Err(DurationError::Number("-1s".to_owned())));
        assert_eq!(parse("1.2.3s"), Err(DurationError::Number("1.2.3s".to_owned())));
        assert_eq!(parse("25h"), Err(DurationError::TooLong));
    }

    #[test]
    fn formats_back() {
        for text in ["15s", "500ms", "250us", "0s"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
    }
}
