//! Wire: the messages inside frames, as archives that are read in place.
//!
//! Data path 1/9 and 9/9.
//!
//! | frame | head | tail | view | written by |
//! |---|---|---|---|---|
//! | `Hello`, `Welcome`, `Refused` | archive | | [`view_hello`], [`view_welcome`], [`view_refused`] | `append_frame` |
//! | `Request` | archive | | [`view_request`] | [`RequestRef::append_frame`] |
//! | `Reply` | archive | | [`view_reply`] | [`ReplyRef::append_frame`], [`append_done`] |
//! | `Raft` | archive, 45 bytes | | [`view_peer_message`] | [`PeerMessage::append_frame`] |
//! | `Append` | archive, 45 bytes | records | [`view_peer_message`] | [`begin_append`] |
//! | `Digest` | archive, 20 bytes | | [`view_digest`] | [`Digest::append_frame`] |
//! | `Status`, `Goodbye` | empty | | | [`append_status`], [`append_goodbye`] |
//! | `StatusReply` | JSON text | | | [`append_status_reply`] |
//! | `Admin` | archive | | [`view_admin_request`] | [`AdminRequest::append_frame`] |
//! | `AdminReply` | archive | | [`view_admin_reply`] | [`AdminReply::append_frame`] |
//! | `Snapshot` | archive, 44 bytes | chunk | [`view_snapshot_piece`] | [`begin_snapshot_piece`] |
//! | `SnapshotAnswer` | archive, 28 bytes | | [`view_snapshot_answer`] | [`SnapshotAnswer::append_frame`] |
//! | `Report` | archive | | [`view_report`] | [`Report::append_frame`] |
//! | `TransferWish` | archive, 12 bytes | | [`view_transfer_wish`] | [`TransferWish::append_frame`] |
//! | `Heartbeats` | archive | | [`view_heartbeats`] | [`HeartbeatsRef::append_frame`] |
//! | `HeartbeatAnswers` | archive | | [`view_heartbeat_answers`] | [`HeartbeatAnswersRef::append_frame`] |
//! | `Watch` | archive | | [`view_watch_request`] | [`WatchRequest::append_frame`] |
//! | `WatchEvent` | archive | | [`view_watch_event`] | [`WatchEventRef::append_frame`] |
//! | `Unwatch` | empty | | | [`append_unwatch`] |
//!
//! Invariant: archived bytes are reached through `archive` only, and always checked.

mod admin;
mod archive;
mod heartbeat;
pub mod items;
#[cfg(test)]
mod mirror_tests;
mod peer;
mod reply;
mod report;
mod request;
mod session;
mod watch;

pub use admin::{AdminRefusal, AdminReply, AdminRequest, view_admin_reply, view_admin_request};
pub use archive::WireError;
pub use heartbeat::{
    ArchivedHeartbeatAnswers, ArchivedHeartbeats, HEARTBEAT_ANSWER_BYTES, HEARTBEAT_BYTES, HEARTBEATS_MAX, Heartbeat,
    HeartbeatAnswer, HeartbeatAnswers, HeartbeatAnswersRef, Heartbeats, HeartbeatsRef, view_heartbeat_answers,
    view_heartbeats,
};
pub use peer::{
    DIGEST_BYTES, Digest, PEER_MESSAGE_BYTES, PeerBody, PeerMessage, SNAPSHOT_ANSWER_BYTES, SNAPSHOT_PIECE_BYTES,
    SnapshotAnswer, SnapshotPiece, begin_append, begin_snapshot_piece, view_digest, view_peer_message,
    view_snapshot_answer, view_snapshot_piece,
};
pub use reply::{
    ArchivedOperationResult, ArchivedOutcome, ArchivedPosition, ArchivedReply, OperationResult, OperationResultRef,
    Outcome, OutcomeRef, Position, Reply, ReplyRef, append_done, view_reply,
};
pub use report::{
    REPORT_GROUPS_MAX, Report, ReportedGroup, TRANSFER_WISH_BYTES, TransferWish, view_report, view_transfer_wish,
};
pub use request::{
    ArchivedConsistency, ArchivedOperation, ArchivedRequest, Consistency, Operation, OperationRef, Request,
    RequestClass, RequestError, RequestRef, UnknownConsistency, group_of_operations, group_of_request,
    validate_request, view_request,
};
pub(crate) use request::{set_session, validate_operations};
pub use session::{
    Hello, NodeInfo, PROTOCOL_VERSION, RefusalCode, Refused, Role, Topology, Welcome, append_goodbye, append_status,
    append_status_reply, view_hello, view_refused, view_welcome,
};
pub use watch::{
    WatchEnd, WatchEvent, WatchEventRef, WatchRequest, append_unwatch, view_watch_event, view_watch_request,
};
