//! Mutants: historic bugs of consensus systems that can be put back one at a time, to see that the checkers find them.
//!
//! Off the data path; nothing of it is left in a build without the feature `mutants`.
//!
//! A site reads `if is_active(Mutant::Name) { the bug }`. The simulator activates one mutant for a whole process run and
//! reports how many seeds it took to catch it. Wal, net and engine have sites too: this crate is the one they share.
//!
//! Relations: at most one mutant is active; without the feature none can be, and `is_active` is the constant `false`.

/// Declares the mutants, each with its name on the command line and where the bug comes from.
macro_rules! mutants {
    ($($mutant:ident, $name:literal, $origin:literal;)+) => {
        /// One bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        #[allow(missing_docs, reason = "the origin says it")]
        pub enum Mutant { $($mutant,)+ }

        impl Mutant {
            /// Every mutant.
            pub const ALL: &[Self] = &[$(Self::$mutant,)+];

            /// The name on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$mutant => $name,)+ }
            }

            /// The bug, and who had it or which rule forbids it.
            #[must_use]
            pub const fn origin(self) -> &'static str {
                match self { $(Self::$mutant => $origin,)+ }
            }
        }
    };
}

mutants! {
    OwnVoteBeforeFlush, "own-vote-before-flush", "a candidate counts its own vote before it is on disk (thesis 3.8)";
    VoteBeforeFlush, "vote-before-flush", "a vote is answered before it is on disk (Raft 5.1, figure 2)";
    VoteNotKept, "vote-not-kept", "the vote is not part of the stored hard state (Raft figure 2)";
    SecondVote, "second-vote", "a second candidate of the same term gets the vote too (Raft 5.2)";
    VoteWithoutLogCheck, "vote-without-log-check", "a candidate with an older log gets the vote (Raft 5.4.1)";
    ForcedVoteBeforeFlush, "forced-vote-before-flush", "the vote for the node that was asked to lead is answered before it is on disk";
    TimeoutNowAppoints, "timeout-now-appoints", "the node that was asked to lead leads without any vote (thesis 3.10)";
    SeenVoteCounted, "seen-vote-counted", "a refused vote counts as granted (openraft #1220)";
    OwnEntryBeforeFlush, "own-entry-before-flush", "the leader counts its own copy before its flush (etcd #14370)";
    AppendBeforeFlush, "append-before-flush", "a follower acknowledges entries before its flush (Raft figure 2)";
    CommitOlderTerm, "commit-older-term", "an entry of an older term is committed by counting (Raft 5.4.2)";
    CommitBeyondMatch, "commit-beyond-match", "a follower commits what the leader did not check (Raft 5.3)";
    AppendWithoutPrevCheck, "append-without-prev-check", "entries are taken whatever precedes them (Raft 5.3)";
    LateAppendTruncates, "late-append-truncates", "a late AppendEntries removes what it does not name (openraft #511)";
    ReadContextReused, "read-context-reused", "late heartbeat answers confirm a later read (etcd #20418)";
    AnswerConfirmsAnyRound, "answer-confirms-any-round", "the answer to a gathered heartbeat confirms rounds that it was not sent for";
    ReadBeforeOwnCommit, "read-before-own-commit", "a new leader reads before it committed anything (etcd #7331)";
    ReadWithoutQuorum, "read-without-quorum", "a leader reads without asking anybody (thesis 6.4)";
    ReadBeforeApply, "read-before-apply", "a confirmed read does not wait for the apply (thesis 6.4)";
    LeaseKeptInTransfer, "lease-kept-in-transfer", "a lease is held while leadership is handed over (thesis 6.4.1)";
    LeaseWithoutDrift, "lease-without-drift", "a lease is not shortened by the drift of clocks (thesis 6.4.1)";
    LeaseIgnoresPauses, "lease-ignores-pauses", "a lease is counted in ticks, which stand still while a process is paused";
    FollowerReadBeforeApply, "follower-read-before-apply", "a follower answers before it applied the index it was told (thesis 6.4)";
    StalledLeaderStays, "stalled-leader-stays", "a leader whose disk hangs goes on leading (etcd #15247)";
    ReplyByIndexAlone, "reply-by-index-alone", "a reply goes to whoever waits at the index, whatever the term";
    RetryAppliedTwice, "retry-applied-twice", "sessions are not looked up: a retry is applied again (thesis 6.3)";
    UnknownToldAsFailed, "unknown-told-as-failed", "requests of a lost leadership are told as certainly not done";
    AppliedAheadOfData, "applied-ahead-of-data", "the applied index moves past an entry not applied (etcd #13766)";
    FlushErrorIgnored, "flush-error-ignored", "a failed flush counts as done (fsyncgate; Rebello 2020)";
    DurableOutOfOrder, "durable-out-of-order", "a finished flush reports earlier unfinished ones as durable";
    CorruptionTakenForTorn, "corruption-taken-for-torn", "a damaged batch ends the log like a torn one (Alagappan 2018)";
    HardStateDropped, "hard-state-dropped", "recovery forgets the stored term and vote";
    StaleBatchAccepted, "stale-batch-accepted", "recovery takes what a recycled segment held before";
    MarkBeforeFile, "mark-before-file", "the log refers to a snapshot whose file is not finished";
    ReceivedUnfinished, "received-unfinished", "a snapshot that came in is installed before its file is finished";
    InstallWithoutMark, "install-without-mark", "a leader's snapshot takes the place of the log in memory only";
    OlderSnapshotRemovedEarly, "older-snapshot-removed-early", "the older snapshot goes before the newer one's mark is durable";
    SessionsNotInSnapshot, "sessions-not-in-snapshot", "sessions are not part of a snapshot (thesis 6.3)";
    SnapshotOneAhead, "snapshot-one-ahead", "a snapshot says it holds an entry that it does not (etcd #13766)";
    SnapshotWithoutPreImages, "snapshot-without-pre-images", "keys that change while a snapshot is taken are not in it as they were";
    MembersWhenCommitted, "members-when-committed", "a configuration is in force when it is committed, not when it is in the log (Raft 6)";
    JointByIncoming, "joint-by-incoming", "a joint configuration commits by the incoming majority alone (thesis 4.3)";
    JointVotesByOutgoing, "joint-votes-by-outgoing", "the outgoing majority alone elects in a joint configuration (thesis 4.3)";
    RemovedLeaderCounts, "removed-leader-counts", "a leader that lost its vote leads on and counts its own copy (thesis 4.2.2)";
    LearnerCounts, "learner-counts", "copies of learners count for commits (thesis 4.2.1)";
    SecondChange, "second-change", "a change of members begins before the one before is committed (raft-dev 2015)";
    DroppedWithoutProof, "dropped-without-proof", "a node gives up a replica as soon as the topology places it elsewhere";
    SnapshotMembersIgnored, "snapshot-members-ignored", "a leader's snapshot does not bring its members (thesis 5.1)";
    TruncatedMembersStay, "truncated-members-stay", "a configuration outlives its truncated entry (etcd #13466)";
    ForgetfulVotes, "forgetful-votes", "a replica does not know that it gave up a log, and votes before it holds it again (thesis 4.2.1)";
    DamagedFrameTaken, "damaged-frame-taken", "checksums of frames are not compared";
    QueueUnbounded, "queue-unbounded", "a shard takes requests beyond its bound";
}

#[cfg(feature = "mutants")]
mod active {
    use super::Mutant;
    use core::sync::atomic::{AtomicU32, Ordering};

    const NONE: u32 = u32::MAX;
    static ACTIVE: AtomicU32 = AtomicU32::new(NONE);

    /// Activates one mutant for the whole process, or none.
    pub fn activate(mutant: Option<Mutant>) {
        ACTIVE.store(mutant.map_or(NONE, |mutant| mutant as u32), Ordering::Relaxed);
    }

    /// Whether this bug is to be there now.
    #[must_use]
    pub fn is_active(mutant: Mutant) -> bool {
        ACTIVE.load(Ordering::Relaxed) == mutant as u32
    }
}

#[cfg(feature = "mutants")]
pub use active::{activate, is_active};

/// Whether this bug is to be there now: never, in this build.
#[cfg(not(feature = "mutants"))]
#[must_use]
#[inline(always)]
pub const fn is_active(_: Mutant) -> bool {
    false
}
