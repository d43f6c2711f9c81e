//! One call: its deadline, the question it makes of the cluster, and the answer or what went wrong.
//!
//! Off the data path.
//! Invariant: a question is asked once; whether it is asked again is the client's to decide, by what the status says.

use std::time::Duration;

use ringraft_net::slots;
use ringraft_net::wire::{Consistency, Operation, OperationResult, Position};
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::deadline;
use super::proto::kv;
use super::status::{self, Problem};
use crate::errors::{Code, Failure};
use crate::state::State;

/// How fresh what a call reads must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Freshness {
    pub(super) consistency: Consistency,
    pub(super) max_staleness_ms: u32,
}

impl Freshness {
    /// What a message says.
    pub(super) fn of(consistency: i32, max_staleness_ms: u32) -> Result<Self, Status> {
        let consistency = match kv::Consistency::try_from(consistency) {
            Ok(kv::Consistency::Unspecified | kv::Consistency::Linearizable) => Consistency::Linearizable,
            Ok(kv::Consistency::Lease) => Consistency::Lease,
            Ok(kv::Consistency::Follower) => Consistency::Follower,
            Ok(kv::Consistency::Stale) => Consistency::Stale,
            Err(_) => return Err(status::bad_request(format!("there is no consistency {consistency}"))),
        };
        if max_staleness_ms > 0 && consistency != Consistency::Stale {
            return Err(status::bad_request("max_staleness_ms is for stale reads"));
        }
        Ok(Self { consistency, max_staleness_ms })
    }
}

/// What all questions of one call share.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) state: State,
    pub(super) timeout: Duration,
    /// When that is over.
    deadline: Instant,
}

impl Call {
    /// A call with this metadata.
    pub(super) fn of(state: &State, metadata: &MetadataMap) -> Result<Self, Status> {
        let timeout = deadline::of(metadata, state.settings().request_timeout)?;
        Ok(Self { state: state.clone(), timeout, deadline: Instant::now() + timeout })
    }

    /// Asks for several operations of one group, all or nothing.
    pub(super) async fn ask(
        &self,
        operations: Vec<Operation>,
        freshness: Freshness,
    ) -> Result<(kv::Position, Vec<OperationResult>), Problem> {
        self.state.fits(&operations)?;
        let Freshness { consistency, max_staleness_ms } = freshness;
        let client = self.state.client();
        let answer = client.request_with(operations, consistency, max_staleness_ms, Some(self.timeout)).await?;
        let Position { group, index, position } = answer.position;
        Ok((kv::Position { group, index, position, term: answer.term }, answer.value))
    }

    /// Asks for one operation.
    pub(super) async fn ask_one(
        &self,
        operation: Operation,
        freshness: Freshness,
    ) -> Result<(kv::Position, OperationResult), Status> {
        let slot = operation.as_operation_ref().key().map(slots::slot);
        let (position, results) = match self.ask(vec![operation], freshness).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.problem(error, slot).await.into()),
        };
        let result = results.into_iter().next().ok_or_else(|| internal("answered without a result"))?;
        Ok((position, result))
    }

    /// Asks for one write.
    pub(super) async fn write(&self, operation: Operation) -> Result<(kv::Position, OperationResult), Status> {
        self.ask_one(operation, Freshness::default()).await
    }

    /// Number of groups of the cluster.
    pub(super) async fn groups(&self) -> Result<u32, Status> {
        self.state.groups().await.map_err(status::of)
    }

    /// What went wrong with a key of this slot, and who leads its group if that is known before the deadline.
    async fn problem(&self, problem: Problem, slot: Option<u16>) -> Problem {
        let Some(slot) = slot else { return problem };
        let Ok(Some(view)) = timeout_at(self.deadline, self.state.view()).await else { return problem };
        let group = slots::group_of_slot(slot, view.groups.max(1));
        problem.in_group(group, Some(&view))
    }
}

/// Which write it was: the version of what the request at this position has written.
pub(super) fn version(position: &kv::Position) -> u64 {
    ringraft_net::wire::items::version_at(position.index, position.position)
}

/// An answer that does not fit its question.
pub(super) fn unexpected(result: &OperationResult) -> Status {
    internal(&format!("answered another operation: {result:?}"))
}

fn internal(message: &str) -> Status {
    status::of(Failure::new(Code::Internal, message))
}

#[cfg(test)]
mod tests {
    use ringraft_net::client::ClientError;

    use super::*;
    use crate::fake::{Fake, run, until};

    #[test]
    fn what_is_too_large_for_the_cluster_is_refused_unsent() {
        run(async {
            let fake = Fake::start().await;
            let state = fake.state(|settings| settings.request_bytes_max = 70 << 10);
            let call = Call::of(&state, &MetadataMap::new()).unwrap();
            let refused =
                call.write(Operation::Put { key: b"k".to_vec(), value: vec![0; 70 << 10] }).await.unwrap_err();
            assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
            let said = |name| refused.metadata().get(name).map(|value| value.to_str().unwrap());
            assert_eq!(said("ringraft-reason"), Some("TOO_LARGE"));
            assert_eq!((said("ringraft-retryable"), said("ringraft-outcome-unknown")), (Some("false"), Some("false")));
            assert_eq!(fake.script().requests, 0);
        });
    }

    #[test]
    fn who_leads_is_looked_for_until_the_deadline_only() {
        run(async {
            let fake = Fake::start().await;
            fake.script().answers = false;
            let state = fake.state(|_| {});
            let first = state.clone();
            tokio::spawn(async move { first.view_now().await });
            until(|| fake.script().statuses == 1).await;
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", "20m".parse().unwrap());
            let call = Call::of(&state, &metadata).unwrap();
            let problem = call.problem(ClientError::OutcomeUnknown.into(), Some(0)).await;
            assert!(problem.outcome_unknown && problem.leader.is_none());
            assert_eq!(fake.script().statuses, 1, "it waited for the end of a question and for another one");
        });
    }

    #[test]
    fn freshness_is_read_or_refused() {
        let of = |consistency, max_staleness_ms| Freshness::of(consistency, max_staleness_ms).ok();
        let fresh = |consistency, max_staleness_ms| Some(Freshness { consistency, max_staleness_ms });
        assert_eq!(of(0, 0), fresh(Consistency::Linearizable, 0));
        assert_eq!(of(1, 0), fresh(Consistency::Linearizable, 0));
        assert_eq!(of(2, 0), fresh(Consistency::Lease, 0));
        assert_eq!(of(3, 0), fresh(Consistency::Follower, 0));
        assert_eq!(of(4, 250), fresh(Consistency::Stale, 250));
        assert_eq!((of(5, 0), of(-1, 0), of(1, 250)), (None, None, None));
    }
}
