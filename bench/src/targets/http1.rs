//! HTTP/1.1, as much as puts and gets of a gateway need: an encoder of requests and a parser of responses.
//!
//! Off the data path.
//!
//! Invariant: the parser never allocates, never panics, and gives the same answers however the bytes were split; `None`
//! means that more bytes are needed.
//! A response must tell its length (`content-length`): a chunked one is an error here, gateways send none.

use std::io::Write as _;

use thiserror::Error;

/// Longest head of a response.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Longest body of a response.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One response, borrowed from the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: &'a [u8],
}

/// The bytes are no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the answer is not a valid HTTP response")]
pub struct HttpError;

/// Parses the first response and says how many bytes it took.
pub fn parse(input: &[u8]) -> Result<Option<(Response<'_>, usize)>, HttpError> {
    let window = &input[..input.len().min(HEAD_BYTES_MAX)];
    let Some(head_bytes) = window.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        let is_hopeless = !b"HTTP/1.1 ".starts_with(&window[..window.len().min(9)]) || window.len() == HEAD_BYTES_MAX;
        return if is_hopeless { Err(HttpError) } else { Ok(None) };
    };
    let mut lines = window[..head_bytes].split(|&byte| byte == b'\n').map(|line| line.trim_ascii_end());
    let status = status_of(lines.next().unwrap_or_default())?;
    let mut length = if matches!(status, 204 | 304) { Some(0) } else { None };
    for line in lines {
        let colon = line.iter().position(|&byte| byte == b':').ok_or(HttpError)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            length = Some(number(value)?);
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Err(HttpError);
        }
    }
    let length = length.filter(|&length| length <= BODY_BYTES_MAX).ok_or(HttpError)?;
    let begin = head_bytes + 4;
    let Some(body) = input.get(begin..begin + length) else { return Ok(None) };
    Ok(Some((Response { status, body }, begin + length)))
}

fn status_of(line: &[u8]) -> Result<u16, HttpError> {
    let digits = line.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3)).ok_or(HttpError)?;
    u16::try_from(number(digits)?).map_err(|_| HttpError)
}

fn number(digits: &[u8]) -> Result<usize, HttpError> {
    if digits.is_empty() || digits.len() > 12 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(HttpError);
    }
    Ok(digits.iter().fold(0, |value, digit| value * 10 + usize::from(digit - b'0')))
}

/// Appends `PUT /kv/{key}` with the value as raw body.
pub fn encode_put(output: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    output.extend_from_slice(b"PUT /kv/");
    percent_encode(output, key);
    output.extend_from_slice(b" HTTP/1.1\r\nhost: ringraft\r\ncontent-type: application/octet-stream\r\n");
    // Writing to a vector does not fail.
    let _ = write!(output, "content-length: {}\r\n\r\n", value.len());
    output.extend_from_slice(value);
}

/// Appends `GET /kv/{key}` that wants the value as raw body.
pub fn encode_get(output: &mut Vec<u8>, key: &[u8], consistency: &str) {
    output.extend_from_slice(b"GET /kv/");
    percent_encode(output, key);
    output.extend_from_slice(b"?consistency=");
    output.extend_from_slice(consistency.as_bytes());
    output.extend_from_slice(b" HTTP/1.1\r\nhost: ringraft\r\naccept: application/octet-stream\r\n\r\n");
}

/// Appends `DELETE /kv/{key}` that wants a JSON answer.
pub fn encode_delete(output: &mut Vec<u8>, key: &[u8]) {
    output.extend_from_slice(b"DELETE /kv/");
    percent_encode(output, key);
    output.extend_from_slice(b" HTTP/1.1\r\nhost: ringraft\r\naccept: application/json\r\n\r\n");
}

fn percent_encode(output: &mut Vec<u8>, key: &[u8]) {
    for &byte in key {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            output.push(byte);
        } else {
            let _ = write!(output, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nx: y\r\n\r\nva\r\n\r\nHTTP/1.1 404 Not Found\r\n\
        content-length:0\r\n\r\nHTTP/1.1 204 No Content\r\ndate: now\r\n\r\nHTTP/1.1 307 \r\ncontent-length: 2\r\n\r\n{}";

    fn expected() -> Vec<(u16, Vec<u8>)> {
        vec![(200, b"va\r\n\r\n".to_vec()), (404, Vec::new()), (204, Vec::new()), (307, b"{}".to_vec())]
    }

    fn parse_split(ends: &[usize]) -> Vec<(u16, Vec<u8>)> {
        let (mut buffer, mut responses, mut begin) = (Vec::new(), Vec::new(), 0);
        for &end in ends.iter().chain([&STREAM.len()]) {
            buffer.extend_from_slice(&STREAM[begin..end]);
            begin = end;
            while let Some((response, consumed)) = parse(&buffer).unwrap() {
                responses.push((response.status, response.body.to_vec()));
                buffer.drain(..consumed);
            }
        }
        assert!(buffer.is_empty());
        responses
    }

    #[test]
    fn any_split_gives_the_same_responses() {
        for first in 0..STREAM.len() {
            for second in first..STREAM.len() {
                assert_eq!(parse_split(&[first, second]), expected(), "split at {first} and {second}");
            }
        }
        let every_byte: Vec<usize> = (0..STREAM.len()).collect();
        assert_eq!(parse_split(&every_byte), expected());
    }

    #[test]
    fn garbage_is_an_error_and_not_a_wait() {
        for bytes in [
            b"hello".as_slice(),
            b"HTTP/1.0 200 OK\r\n\r\n",
            b"HTTP/1.1 20\r\n\r\n",
            b"HTTP/1.1 abc\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 9999999999999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            assert_eq!(parse(bytes), Err(HttpError), "{:?}", String::from_utf8_lossy(bytes));
        }
        let endless = [b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &[b'y'; HEAD_BYTES_MAX]].concat();
        assert_eq!(parse(&endless), Err(HttpError));
    }

    #[test]
    fn requests_are_as_the_protocol_says() {
        let mut output = Vec::new();
        encode_put(&mut output, b"key-1/\xff", b"value");
        let put = "PUT /kv/key-1%2F%FF HTTP/1.1\r\nhost: ringraft\r\ncontent-type: application/octet-stream\r\n\
            content-length: 5\r\n\r\nvalue";
        assert_eq!(String::from_utf8(output.clone()).unwrap(), put);
        output.clear();
        encode_get(&mut output, b"a", "stale");
        let get = "GET /kv/a?consistency=stale HTTP/1.1\r\nhost: ringraft\r\naccept: application/octet-stream\r\n\r\n";
        assert_eq!(String::from_utf8(output).unwrap(), get);
    }
}
