//! Tests that the borrowed forms and the owned types have one and the same archive.
//!
//! Off the data path.
//!
//! The owned types implement `Serialize` in tests only; everything else encodes borrowed forms.

use super::*;
use proptest::prelude::*;
use rkyv::rancor::Error;

fn operation() -> impl Strategy<Value = Operation> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        (bytes(), bytes()).prop_map(|(key, value)| Operation::Put { key, value }),
        bytes().prop_map(|key| Operation::Get { key }),
        bytes().prop_map(|key| Operation::Delete { key }),
        (bytes(), prop::option::of(bytes()), bytes()).prop_map(|(key, expected, value)| Operation::CompareAndSet {
            key,
            expected,
            value
        }),
        any::<u32>().prop_map(|group| Operation::OpenSession { group }),
        (bytes(), any::<u64>(), prop::option::of(bytes()))
            .prop_map(|(key, version, value)| Operation::CompareVersion { key, version, value }),
        (any::<(u32, u32, bool)>(), bytes(), bytes()).prop_map(|((group, limit, keys_only), start, end)| {
            Operation::Range { group, start, end, limit, keys_only }
        }),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let consistency = prop_oneof![
        Just(Consistency::Linearizable),
        Just(Consistency::Stale),
        Just(Consistency::Lease),
        Just(Consistency::Follower)
    ];
    (any::<(u64, u64, u64)>(), consistency, prop::collection::vec(operation(), 0..9)).prop_map(
        |((client, sequence, acknowledged), consistency, operations)| Request {
            client,
            sequence,
            acknowledged,
            consistency,
            operations,
        },
    )
}

#[test]
fn consistencies_have_names() {
    for consistency in Consistency::ALL {
        assert_eq!(consistency.name().parse(), Ok(consistency));
    }
    assert_eq!("Stale".parse::<Consistency>(), Err(UnknownConsistency));
}

fn result() -> impl Strategy<Value = OperationResult> {
    let value = || prop::option::of(prop::collection::vec(any::<u8>(), 0..40));
    prop_oneof![
        any::<bool>().prop_map(|replaced| OperationResult::Put { replaced }),
        value().prop_map(OperationResult::Value),
        any::<bool>().prop_map(|existed| OperationResult::Deleted { existed }),
        (any::<bool>(), value()).prop_map(|(swapped, current)| OperationResult::Compared { swapped, current }),
        any::<u64>().prop_map(|client| OperationResult::Session { client }),
        Just(OperationResult::NotApplied),
        (any::<bool>(), any::<u64>())
            .prop_map(|(swapped, version)| OperationResult::ComparedVersion { swapped, version }),
        (prop::collection::vec(any::<u8>(), 0..60), any::<bool>())
            .prop_map(|(items, more)| OperationResult::Items { items, more }),
    ]
}

fn watch_event() -> impl Strategy<Value = WatchEvent> {
    let end = prop_oneof![Just(WatchEnd::Compacted), Just(WatchEnd::NotHere), Just(WatchEnd::BadRequest)];
    prop_oneof![
        (any::<u32>(), any::<u64>(), prop::collection::vec(any::<u8>(), 0..60))
            .prop_map(|(group, next, items)| WatchEvent::Changes { group, next, items }),
        (any::<u32>(), end, any::<u64>(), ".{0,20}").prop_map(|(group, end, index, message)| WatchEvent::Ended {
            group,
            end,
            index,
            message
        }),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let outcome = prop_oneof![
        prop::collection::vec(result(), 0..9).prop_map(Outcome::Done),
        (any::<(u32, u64, u16)>(), ".{0,20}").prop_map(|((group, node, shard), address)| Outcome::Moved {
            group,
            node,
            shard,
            address
        }),
        (any::<u32>(), any::<Option<u64>>()).prop_map(|(group, leader)| Outcome::NotLeader { group, leader }),
        any::<u64>().prop_map(|retry_after_us| Outcome::Overloaded { retry_after_us }),
        Just(Outcome::SessionExpired),
        ".{0,20}".prop_map(|message| Outcome::BadRequest { message }),
        Just(Outcome::OutcomeUnknown),
        ".{0,20}".prop_map(|message| Outcome::Unavailable { message }),
        Just(Outcome::TooStale),
    ];
    (any::<(u32, u64, u32, u64)>(), outcome).prop_map(|((group, index, position, term), outcome)| Reply {
        position: Position { group, index, position },
        outcome,
        term,
    })
}

proptest! {
    #[test]
    fn requests_have_one_archive(request in request()) {
        let mut borrowed = Vec::new();
        request.append_to(&mut borrowed);
        let owned = rkyv::to_bytes::<Error>(&request).unwrap();
        prop_assert_eq!(&borrowed[..], &owned[..]);
        let view = view_request(&borrowed).unwrap();
        prop_assert_eq!(view.client.to_native(), request.client);
        prop_assert_eq!(view.sequence.to_native(), request.sequence);
        prop_assert_eq!(view.acknowledged.to_native(), request.acknowledged);
        prop_assert_eq!(view.consistency.to_native(), request.consistency);
        prop_assert!(view.operations().eq(request.operations.iter().map(Operation::as_operation_ref)));
    }

    #[test]
    fn replies_have_one_archive(reply in reply()) {
        let mut borrowed = Vec::new();
        reply.append_to(&mut borrowed);
        let owned = rkyv::to_bytes::<Error>(&reply).unwrap();
        prop_assert_eq!(&borrowed[..], &owned[..]);
        prop_assert_eq!(view_reply(&borrowed).unwrap().to_owned_reply(), reply);
    }

    #[test]
    fn watch_events_have_one_archive(event in watch_event()) {
        let mut borrowed = Vec::new();
        event.as_event_ref().append_frame(&mut borrowed, 7);
        let head = &borrowed[crate::frame::HEADER_BYTES..];
        prop_assert_eq!(head, &rkyv::to_bytes::<Error>(&event).unwrap()[..]);
        prop_assert_eq!(view_watch_event(head), Ok(event));
    }

    #[test]
    fn an_archive_does_not_depend_on_its_offset(request in request(), offset in 0usize..9) {
        let mut at_zero = Vec::new();
        request.append_to(&mut at_zero);
        let mut elsewhere = vec![0xAB; offset];
        request.append_to(&mut elsewhere);
        prop_assert_eq!(&elsewhere[offset..], &at_zero[..]);
    }

    #[test]
    fn any_bytes_are_an_error_or_a_value(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = view_request(&bytes).map(|request| request.operations().count());
        let _ = view_reply(&bytes).map(ArchivedReply::to_owned_reply);
        let _ = view_hello(&bytes);
        let _ = view_welcome(&bytes);
        let _ = view_refused(&bytes);
        let _ = view_peer_message(&bytes);
        let _ = view_digest(&bytes);
        let _ = view_watch_request(&bytes);
        let _ = view_watch_event(&bytes);
        let _ = view_heartbeats(&bytes).map(|view| view.heartbeats().count());
        let _ = view_heartbeat_answers(&bytes).map(|view| view.answers().count());
    }

    #[test]
    fn a_damaged_archive_is_an_error_or_a_value(request in request(), reply in reply(), at in any::<usize>(), flip in 1u8..) {
        let mut bytes = Vec::new();
        request.append_to(&mut bytes);
        let at_byte = at % bytes.len();
        bytes[at_byte] ^= flip;
        let _ = view_request(&bytes).map(|request| request.operations().map(|o| o.payload_bytes()).sum::<usize>());
        bytes.clear();
        reply.append_to(&mut bytes);
        let at_byte = at % bytes.len();
        bytes[at_byte] ^= flip;
        let _ = view_reply(&bytes).map(ArchivedReply::to_owned_reply);
    }
}
