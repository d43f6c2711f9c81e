//! Redis (or anything that speaks RESP2): SET, GET and DEL, pipelined over a few connections.
//!
//! Off the data path.
//!
//! It reports how Redis is configured (`appendonly`, `appendfsync`), because figures without `always` compare a memory
//! cache with a durable store.

use super::pipelined::{Malformed, Parsed, PipelinedTarget, Wire};
use super::resp::{self, Reply};
use super::socket::resolve;
use super::{Seen, TargetError};
use crate::clock::MonotonicClock;
use crate::recorder::ErrorKind;
use crate::workload::{OperationKind, mark_of};

/// A Redis under load.
pub type RedisTarget = PipelinedTarget<RedisWire>;

/// SET, GET and DEL.
#[derive(Clone, Copy, Debug)]
pub struct RedisWire;

impl Wire for RedisWire {
    fn put(&self, output: &mut Vec<u8>, key: &[u8], value: &[u8]) {
        resp::encode(output, &[b"SET", key, value]);
    }

    fn get(&self, output: &mut Vec<u8>, key: &[u8]) {
        resp::encode(output, &[b"GET", key]);
    }

    fn delete(&self, output: &mut Vec<u8>, key: &[u8]) {
        resp::encode(output, &[b"DEL", key]);
    }

    fn answer(&self, _kind: OperationKind, input: &[u8]) -> Result<Option<Parsed>, Malformed> {
        let parsed = resp::parse(input).map_err(|_| Malformed)?;
        Ok(parsed.map(|(reply, consumed)| (judge(reply), consumed)))
    }
}

impl RedisTarget {
    /// Connects and asks for the settings.
    pub fn connect(address: &str, connections: usize, clock: MonotonicClock) -> Result<Self, TargetError> {
        let mut target = Self::open(RedisWire, &[resolve(address)?], connections, clock)?;
        let settings = ask_settings(&mut target)
            .map_err(|reason| TargetError::Handshake { address: address.to_owned(), reason })?;
        let durable = settings.iter().any(|(name, value)| name == "appendonly" && value == "yes")
            && settings.iter().any(|(name, value)| name == "appendfsync" && value == "always");
        if !durable {
            let warning = "redis does not flush before it answers (appendonly yes and appendfsync always would)";
            target.facts.warnings.push(warning.to_owned());
        }
        target.facts.settings.extend(settings);
        Ok(target)
    }
}

fn judge(reply: Reply<'_>) -> Result<Seen, ErrorKind> {
    match reply {
        Reply::Simple(b"OK") => Ok(Seen::Written),
        Reply::Bulk(None) | Reply::Integer(0) => Ok(Seen::Missing),
        Reply::Integer(1) => Ok(Seen::Deleted),
        Reply::Bulk(Some(value)) => Ok(Seen::Value { length: value.len(), mark: mark_of(value) }),
        Reply::Error(_) => Err(ErrorKind::ServerError),
        Reply::Simple(_) | Reply::Integer(_) | Reply::Array(_) => Err(ErrorKind::Protocol),
    }
}

/// Version and durability, within the connect timeout.
fn ask_settings(target: &mut RedisTarget) -> Result<Vec<(String, String)>, String> {
    let mut settings = Vec::new();
    for name in ["appendonly", "appendfsync", "save"] {
        let words = ask(target, &[b"CONFIG", b"GET", name.as_bytes()], 3)?;
        if let [_, _, value] = words.as_slice() {
            settings.push((name.to_owned(), value.clone()));
        }
    }
    for line in ask(target, &[b"INFO", b"server"], 1)?.concat().lines() {
        if let Some(version) = line.strip_prefix("redis_version:") {
            settings.push(("version".to_owned(), version.to_owned()));
        }
    }
    Ok(settings)
}

/// Sends a command and waits for `replies` replies (an array header counts as one) or one error.
fn ask(target: &mut RedisTarget, command: &[&[u8]], replies: usize) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let read = |input: &[u8]| {
        let mut consumed = 0;
        while words.len() < replies {
            let parsed = resp::parse(&input[consumed..]).map_err(|error| error.to_string())?;
            let Some((reply, bytes)) = parsed else { return Ok((consumed, false)) };
            consumed += bytes;
            words.push(match reply {
                Reply::Simple(text) | Reply::Bulk(Some(text)) => String::from_utf8_lossy(text).into_owned(),
                Reply::Error(text) => {
                    let text = String::from_utf8_lossy(text).into_owned();
                    // A managed Redis may refuse CONFIG; one that wants a password refuses everything.
                    if text.starts_with("NOAUTH") {
                        return Err(text);
                    }
                    words.clear();
                    return Ok((consumed, true));
                }
                Reply::Integer(_) | Reply::Bulk(None) => String::new(),
                Reply::Array(_) => "array".to_owned(),
            });
        }
        Ok((consumed, true))
    };
    target.ask(|output| resp::encode(output, command), read)?;
    Ok(words)
}
