//! ringraft over HTTP: `PUT` and `GET` of `/kv/{key}` of the nodes' gateways, raw bodies, on connections that stay open.
//!
//! Off the data path.
//!
//! Connections go to all nodes round robin and none is moved: nodes must pass writes on (`http_proxy`), else those that do
//! not lead answer `307`, which counts as an error here.

use ringraft_net::wire::Consistency;

use super::http1::{self, Response};
use super::pipelined::{Malformed, Parsed, PipelinedTarget, Wire};
use super::socket::resolve;
use super::{Seen, TargetError};
use crate::clock::MonotonicClock;
use crate::recorder::ErrorKind;
use crate::workload::{OperationKind, mark_of};

/// A ringraft cluster under load through its gateways.
pub type RingraftHttpTarget = PipelinedTarget<HttpWire>;

/// Puts and gets of the gateway.
#[derive(Clone, Copy, Debug)]
pub struct HttpWire {
    consistency: Consistency,
}

impl Wire for HttpWire {
    fn put(&self, output: &mut Vec<u8>, key: &[u8], value: &[u8]) {
        http1::encode_put(output, key, value);
    }

    fn get(&self, output: &mut Vec<u8>, key: &[u8]) {
        http1::encode_get(output, key, self.consistency.name());
    }

    fn delete(&self, output: &mut Vec<u8>, key: &[u8]) {
        http1::encode_delete(output, key);
    }

    fn answer(&self, kind: OperationKind, input: &[u8]) -> Result<Option<Parsed>, Malformed> {
        let parsed = http1::parse(input).map_err(|_| Malformed)?;
        Ok(parsed.map(|(response, consumed)| (judge(kind, response), consumed)))
    }
}

impl RingraftHttpTarget {
    /// Connects to the gateways at the endpoints and asks the first for the cluster's size.
    pub fn connect(
        endpoints: &[String],
        connections: usize,
        consistency: Consistency,
        clock: MonotonicClock,
    ) -> Result<Self, TargetError> {
        let addresses = endpoints.iter().map(|endpoint| resolve(endpoint)).collect::<Result<Vec<_>, _>>()?;
        let mut target = Self::open(HttpWire { consistency }, &addresses, connections, clock)?;
        let status = ask_status(&mut target)
            .map_err(|reason| TargetError::Handshake { address: endpoints[0].clone(), reason })?;
        let count = |name: &str| status[name].as_u64();
        target.facts.nodes = count("totalNodes").unwrap_or(0) as usize;
        target.facts.groups = status["groups"].as_array().and_then(|groups| u32::try_from(groups.len()).ok());
        target.facts.settings.insert("reads".to_owned(), consistency.name().to_owned());
        Ok(target)
    }
}

fn ask_status(target: &mut RingraftHttpTarget) -> Result<serde_json::Value, String> {
    let mut status = serde_json::Value::Null;
    let question = |output: &mut Vec<u8>| {
        output.extend_from_slice(b"GET /cluster/status HTTP/1.1\r\nhost: ringraft\r\n\r\n");
    };
    target.ask(question, |input| {
        let Some((response, consumed)) = http1::parse(input).map_err(|error| error.to_string())? else {
            return Ok((0, false));
        };
        if response.status != 200 {
            return Err(format!("GET /cluster/status was answered with {}", response.status));
        }
        status = serde_json::from_slice(response.body).map_err(|error| error.to_string())?;
        Ok((consumed, true))
    })?;
    Ok(status)
}

/// In the answer to a delete that found nothing.
const ABSENT: &[u8] = b"\"existed\":false";

fn judge(kind: OperationKind, response: Response<'_>) -> Result<Seen, ErrorKind> {
    match response.status {
        200 | 201 if kind == OperationKind::Put => Ok(Seen::Written),
        200 if kind == OperationKind::Delete => {
            let was_there = !response.body.windows(ABSENT.len()).any(|part| part == ABSENT);
            Ok(if was_there { Seen::Deleted } else { Seen::Missing })
        }
        200 => Ok(Seen::Value { length: response.body.len(), mark: mark_of(response.body) }),
        404 if kind == OperationKind::Get => Ok(Seen::Missing),
        307 => Err(ErrorKind::NotLeader),
        400 | 405 | 413 | 415 => Err(ErrorKind::BadRequest),
        429 => Err(ErrorKind::Overloaded),
        503 => Err(ErrorKind::Unavailable),
        504 => Err(ErrorKind::OutcomeUnknown),
        _ => Err(ErrorKind::ServerError),
    }
}
