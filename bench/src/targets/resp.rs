//! RESP2, as much as SET and GET need: an encoder and a parser over borrowed bytes.
//!
//! Off the data path.
//!
//! Invariant: the parser never allocates, never panics, and gives the same answers however the bytes were split; `None`
//! means that more bytes are needed. Arrays are reported as their header; their items follow as replies of their own.

use std::io::Write as _;

use thiserror::Error;

/// Longest bulk string accepted.
const BULK_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest line accepted (simple strings, errors, lengths).
const LINE_BYTES_MAX: usize = 64 * 1024;

/// One reply, borrowed from the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// `+OK`
    Simple(&'a [u8]),
    /// `-ERR ...`
    Error(&'a [u8]),
    /// `:42`
    Integer(i64),
    /// `$5 hello`; `None` is the null of a missing key.
    Bulk(Option<&'a [u8]>),
    /// `*n`: so many replies follow.
    Array(usize),
}

/// The bytes are no RESP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the reply is not valid RESP")]
pub struct RespError;

/// Parses the first reply and says how many bytes it took.
pub fn parse(input: &[u8]) -> Result<Option<(Reply<'_>, usize)>, RespError> {
    let Some(&kind) = input.first() else { return Ok(None) };
    if !b"+-:$*".contains(&kind) {
        return Err(RespError);
    }
    let window = &input[..input.len().min(LINE_BYTES_MAX)];
    let Some(line_end) = window.iter().position(|&byte| byte == b'\r') else {
        return if window.len() == LINE_BYTES_MAX { Err(RespError) } else { Ok(None) };
    };
    match input.get(line_end + 1) {
        None => return Ok(None),
        Some(b'\n') => {}
        Some(_) => return Err(RespError),
    }
    let line = &input[1..line_end];
    let consumed = line_end + 2;
    let reply = match kind {
        b'+' => Reply::Simple(line),
        b'-' => Reply::Error(line),
        b':' => Reply::Integer(number(line)?),
        b'*' => Reply::Array(number(line)?.max(0) as usize),
        _ => return bulk(input, number(line)?, consumed),
    };
    Ok(Some((reply, consumed)))
}

fn bulk(input: &[u8], length: i64, begin: usize) -> Result<Option<(Reply<'_>, usize)>, RespError> {
    if length == -1 {
        return Ok(Some((Reply::Bulk(None), begin)));
    }
    let length = usize::try_from(length).map_err(|_| RespError)?;
    if length > BULK_BYTES_MAX {
        return Err(RespError);
    }
    let end = begin + length;
    let Some(terminator) = input.get(end..end + 2) else { return Ok(None) };
    if terminator != b"\r\n" {
        return Err(RespError);
    }
    Ok(Some((Reply::Bulk(Some(&input[begin..end])), end + 2)))
}

fn number(line: &[u8]) -> Result<i64, RespError> {
    let (negative, digits) = match line {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 18 {
        return Err(RespError);
    }
    let mut value = 0_i64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return Err(RespError);
        }
        value = value * 10 + i64::from(digit - b'0');
    }
    Ok(if negative { -value } else { value })
}

/// Appends a command: an array of bulk strings.
pub fn encode(output: &mut Vec<u8>, words: &[&[u8]]) {
    header(output, b'*', words.len());
    for word in words {
        header(output, b'$', word.len());
        output.extend_from_slice(word);
        output.extend_from_slice(b"\r\n");
    }
}

fn header(output: &mut Vec<u8>, kind: u8, number: usize) {
    output.push(kind);
    if number < 10 {
        output.push(b'0' + number as u8);
    } else {
        // Writing to a vector does not fail.
        let _ = write!(output, "{number}");
    }
    output.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"+OK\r\n$5\r\nhe\r\no\r\n$-1\r\n-ERR no\r\n:-42\r\n*2\r\n$0\r\n\r\n+\r\n";

    fn expected() -> Vec<Reply<'static>> {
        vec![
            Reply::Simple(b"OK"),
            Reply::Bulk(Some(b"he\r\no")),
            Reply::Bulk(None),
            Reply::Error(b"ERR no"),
            Reply::Integer(-42),
            Reply::Array(2),
            Reply::Bulk(Some(b"")),
            Reply::Simple(b""),
        ]
    }

    /// Feeds the stream in pieces that end at the given places; every prefix must be either a reply or "more".
    fn parse_split(ends: &[usize]) -> Vec<Vec<u8>> {
        let mut buffer: Vec<u8> = Vec::new();
        let mut replies = Vec::new();
        let mut begin = 0;
        for &end in ends.iter().chain([&STREAM.len()]) {
            buffer.extend_from_slice(&STREAM[begin..end]);
            begin = end;
            while let Some((reply, consumed)) = parse(&buffer).unwrap() {
                replies.push(format!("{reply:?}").into_bytes());
                buffer.drain(..consumed);
            }
        }
        assert!(buffer.is_empty());
        replies
    }

    #[test]
    fn any_split_gives_the_same_replies() {
        let expected: Vec<Vec<u8>> = expected().iter().map(|reply| format!("{reply:?}").into_bytes()).collect();
        for first in 0..STREAM.len() {
            for second in first..STREAM.len() {
                assert_eq!(parse_split(&[first, second]), expected, "split at {first} and {second}");
            }
        }
        let every_byte: Vec<usize> = (0..STREAM.len()).collect();
        assert_eq!(parse_split(&every_byte), expected);
    }

    #[test]
    fn garbage_is_an_error_and_not_a_wait() {
        for bytes in [
            b"hello\r\n".as_slice(),
            b"\r\n",
            b"$x\r\n",
            b"$-2\r\n",
            b"$\r\n",
            b":1a\r\n",
            b"$3\r\nabcde",
            b"+OK\rx",
            b"$99999999999\r\n",
            b":1234567890123456789\r\n",
        ] {
            assert_eq!(parse(bytes), Err(RespError), "{:?}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(parse(&[b'+'; LINE_BYTES_MAX + 1]), Err(RespError));
    }

    #[test]
    fn commands_are_as_the_protocol_says() {
        let mut output = Vec::new();
        encode(&mut output, &[b"SET", b"key-000000000001", &[b'v'; 12]]);
        assert_eq!(output, b"*3\r\n$3\r\nSET\r\n$16\r\nkey-000000000001\r\n$12\r\nvvvvvvvvvvvv\r\n");
    }
}
