//! What a run measured: HDR histograms per kind of operation, and errors by kind.
//!
//! Off the data path. Two histograms per kind: *response* from the intended start, *service* from the send.
//! Values are nanoseconds with three significant digits, up to an hour; about 250 KB per histogram, allocated once.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::workload::OperationKind;

const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;
/// A refusal that comes sooner is a fast one.
const FAST_REFUSAL_NS: u64 = 10_000_000;

/// An empty latency histogram.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, SIGNIFICANT_DIGITS).expect("constant bounds are valid")
}

/// Why an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The server was over one of its bounds.
    Overloaded,
    /// No leader was found in time.
    NotLeader,
    /// The slot moved and the new place was not found in time.
    Moved,
    /// The session of the client had expired.
    SessionExpired,
    /// The operation may or may not have been applied.
    OutcomeUnknown,
    /// The service could not be reached or could not answer.
    Unavailable,
    /// The server refused the request as malformed.
    BadRequest,
    /// The server answered with another error.
    ServerError,
    /// The connection broke before the answer.
    Disconnected,
    /// The answer was no valid answer.
    Protocol,
    /// No answer until the deadline, or until the end of the run's drain.
    Timeout,
    /// A key that was preloaded has no value.
    MissingValue,
    /// A value read is not one that was written to its key.
    WrongValue,
    /// Open loop: due within the window, never sent because too many operations were outstanding.
    Overrun,
}

impl ErrorKind {
    /// All kinds, in order of their discriminant.
    pub const ALL: [Self; 14] = [
        Self::Overloaded,
        Self::NotLeader,
        Self::Moved,
        Self::SessionExpired,
        Self::OutcomeUnknown,
        Self::Unavailable,
        Self::BadRequest,
        Self::ServerError,
        Self::Disconnected,
        Self::Protocol,
        Self::Timeout,
        Self::MissingValue,
        Self::WrongValue,
        Self::Overrun,
    ];

    /// Whether nobody answered: how long the answer would have taken is not known.
    fn is_unanswered(self) -> bool {
        matches!(self, Self::OutcomeUnknown | Self::Disconnected | Self::Timeout | Self::Overrun)
    }

    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::NotLeader => "not_leader",
            Self::Moved => "moved",
            Self::SessionExpired => "session_expired",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Unavailable => "unavailable",
            Self::BadRequest => "bad_request",
            Self::ServerError => "server_error",
            Self::Disconnected => "disconnected",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
            Self::MissingValue => "missing_value",
            Self::WrongValue => "wrong_value",
            Self::Overrun => "overrun",
        }
    }
}

/// Histograms of one kind of operation.
#[derive(Clone, Debug)]
pub struct KindRecorder {
    /// From the intended start to the answer.
    pub response: Histogram<u64>,
    /// From the send to the answer.
    pub service: Histogram<u64>,
}

impl KindRecorder {
    fn new() -> Self {
        Self { response: histogram(), service: histogram() }
    }
}

/// Everything measured in the window.
#[derive(Clone, Debug)]
pub struct Recorder {
    puts: KindRecorder,
    gets: KindRecorder,
    deletes: KindRecorder,
    errors: [u64; ErrorKind::ALL.len()],
    /// Operations of the window that succeeded.
    pub succeeded: u64,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// Nothing measured yet.
    #[must_use]
    pub fn new() -> Self {
        let errors = [0; ErrorKind::ALL.len()];
        let [puts, gets, deletes] = [KindRecorder::new(), KindRecorder::new(), KindRecorder::new()];
        Self { puts, gets, deletes, errors, succeeded: 0 }
    }

    /// The histograms of one kind.
    #[must_use]
    pub fn kind(&self, kind: OperationKind) -> &KindRecorder {
        match kind {
            OperationKind::Put => &self.puts,
            OperationKind::Get => &self.gets,
            OperationKind::Delete => &self.deletes,
        }
    }

    fn kind_mut(&mut self, kind: OperationKind) -> &mut KindRecorder {
        match kind {
            OperationKind::Put => &mut self.puts,
            OperationKind::Get => &mut self.gets,
            OperationKind::Delete => &mut self.deletes,
        }
    }

    /// An operation that succeeded.
    pub fn success(&mut self, kind: OperationKind, response_ns: u64, service_ns: u64) {
        self.succeeded += 1;
        let recorder = self.kind_mut(kind);
        recorder.response.saturating_record(response_ns.max(1));
        recorder.service.saturating_record(service_ns.max(1));
    }

    /// An operation that failed after this time. It is in the response histogram with the time it had waited, a lower
    /// bound of what its user waits, so that its absence does not improve the percentiles. A fast refusal would improve
    /// them by being there: it is only counted.
    pub fn failure(&mut self, kind: OperationKind, error: ErrorKind, waited_ns: u64) {
        self.errors[error as usize] += 1;
        if error.is_unanswered() || waited_ns >= FAST_REFUSAL_NS {
            self.kind_mut(kind).response.saturating_record(waited_ns.max(1));
        }
    }

    /// Number of failed operations.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors.iter().sum()
    }

    /// Operations of the window, however they ended.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.succeeded + self.errors()
    }

    /// The kinds of errors that occurred.
    #[must_use]
    pub fn errors_by_kind(&self) -> BTreeMap<&'static str, u64> {
        ErrorKind::ALL
            .iter()
            .map(|kind| (kind.name(), self.errors[*kind as usize]))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Response latencies of all kinds together.
    #[must_use]
    pub fn response(&self) -> Histogram<u64> {
        sum([&self.puts.response, &self.gets.response, &self.deletes.response])
    }

    /// Service times of all kinds together.
    #[must_use]
    pub fn service(&self) -> Histogram<u64> {
        sum([&self.puts.service, &self.gets.service, &self.deletes.service])
    }

    /// Adds what another round measured.
    pub fn merge(&mut self, other: &Self) {
        let Self { puts, gets, deletes, .. } = self;
        for (mine, theirs) in [(puts, &other.puts), (gets, &other.gets), (deletes, &other.deletes)] {
            add(&mut mine.response, &theirs.response);
            add(&mut mine.service, &theirs.service);
        }
        for (mine, theirs) in self.errors.iter_mut().zip(other.errors) {
            *mine += theirs;
        }
        self.succeeded += other.succeeded;
    }
}

fn add(to: &mut Histogram<u64>, from: &Histogram<u64>) {
    to.add(from).expect("all histograms have the same bounds");
}

fn sum([first, others @ ..]: [&Histogram<u64>; 3]) -> Histogram<u64> {
    let mut total = first.clone();
    others.iter().for_each(|other| add(&mut total, other));
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_kinds_are_indexed_by_discriminant() {
        for (index, kind) in ErrorKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, index);
        }
    }

    #[test]
    fn failures_do_not_improve_percentiles() {
        let mut recorder = Recorder::new();
        recorder.success(OperationKind::Put, 1_000_000, 900_000);
        recorder.failure(OperationKind::Put, ErrorKind::Overloaded, 5_000);
        recorder.failure(OperationKind::Get, ErrorKind::Timeout, 5_000_000);
        assert_eq!(recorder.operations(), 3);
        assert_eq!(recorder.errors_by_kind(), BTreeMap::from([("overloaded", 1), ("timeout", 1)]));
        assert_eq!(recorder.response().len(), 2);
        assert!(recorder.response().max() >= 5_000_000);
        let mut total = Recorder::new();
        total.merge(&recorder);
        total.merge(&recorder);
        assert_eq!((total.operations(), total.errors(), total.response().len()), (6, 4, 4));
    }

    #[test]
    fn failures_that_users_waited_for_are_in_the_percentiles() {
        for error in ErrorKind::ALL {
            let mut recorder = Recorder::new();
            recorder.success(OperationKind::Put, 1_000_000, 900_000);
            recorder.failure(OperationKind::Put, error, 3_000_000_000);
            assert!(recorder.response().max() >= 3_000_000_000, "{}", error.name());
            assert_eq!(recorder.service().len(), 1, "{}", error.name());
        }
    }
}
