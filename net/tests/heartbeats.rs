//! Frames of heartbeats and their answers: what goes in comes out, and nothing else is one.
//!
//! Off the data path.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;
use ringraft_net::frame::{self, FrameKind, HEADER_BYTES};
use ringraft_net::limits::Limits;
use ringraft_net::wire::{
    self, HEARTBEAT_ANSWER_BYTES, HEARTBEAT_BYTES, HEARTBEATS_MAX, Heartbeat, HeartbeatAnswer, HeartbeatAnswersRef,
    HeartbeatsRef,
};

fn heartbeats() -> impl Strategy<Value = Vec<Heartbeat>> {
    let one = any::<(u32, u64, u64, u64)>().prop_map(|(group, term, leader_commit, read_sequence)| Heartbeat {
        group,
        term,
        leader_commit,
        read_sequence,
    });
    prop::collection::vec(one, 1..40)
}

fn answers() -> impl Strategy<Value = Vec<HeartbeatAnswer>> {
    let one = any::<(u32, u64, u64)>();
    let one = one.prop_map(|(group, term, read_sequence)| HeartbeatAnswer { group, term, read_sequence });
    prop::collection::vec(one, 1..40)
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(sent_us in any::<u64>(), groups in heartbeats(), offset in 0_usize..9) {
        let mut bytes = vec![0; offset];
        let length = HeartbeatsRef { sent_us, groups: &groups }.append_frame(&mut bytes);
        let parsed = frame::parse(&bytes[offset..], &Limits::PEER).unwrap().unwrap();
        prop_assert_eq!((parsed.kind, parsed.total_bytes), (FrameKind::Heartbeats, length));
        prop_assert_eq!(length, HEADER_BYTES + groups.len() * HEARTBEAT_BYTES + 16);
        let view = wire::view_heartbeats(parsed.head).unwrap();
        prop_assert_eq!(view.sent_us.to_native(), sent_us);
        prop_assert_eq!(view.heartbeats().collect::<Vec<_>>(), groups);
    }

    #[test]
    fn answers_too(sent_us in any::<u64>(), shield_us in any::<u64>(), groups in answers()) {
        let mut bytes = Vec::new();
        let length = HeartbeatAnswersRef { sent_us, shield_us, groups: &groups }.append_frame(&mut bytes);
        let parsed = frame::parse(&bytes, &Limits::PEER).unwrap().unwrap();
        prop_assert_eq!((parsed.kind, parsed.total_bytes), (FrameKind::HeartbeatAnswers, length));
        prop_assert_eq!(length, HEADER_BYTES + groups.len() * HEARTBEAT_ANSWER_BYTES + 24);
        let view = wire::view_heartbeat_answers(parsed.head).unwrap();
        prop_assert_eq!((view.sent_us.to_native(), view.shield_us.to_native()), (sent_us, shield_us));
        prop_assert_eq!(view.answers().collect::<Vec<_>>(), groups);
    }

    #[test]
    fn damaged_ones_are_refused_or_bounded(groups in heartbeats(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = Vec::new();
        HeartbeatsRef { sent_us: 1, groups: &groups }.append_frame(&mut bytes);
        let mut head = bytes.split_off(HEADER_BYTES);
        let place = at.index(head.len());
        head[place] = byte;
        if let Ok(view) = wire::view_heartbeats(&head) {
            prop_assert!((1..=groups.len()).contains(&view.heartbeats().len()));
        }
        let cut = at.index(head.len());
        let _ = wire::view_heartbeats(&head[cut..]).map(|view| view.heartbeats().count());
    }
}

#[test]
fn a_frame_has_one_group_at_least_and_not_too_many() {
    for (count, allowed) in [(0, false), (1, true), (HEARTBEATS_MAX, true), (HEARTBEATS_MAX + 1, false)] {
        let mut bytes = Vec::new();
        HeartbeatsRef { sent_us: 1, groups: &vec![Heartbeat::default(); count] }.append_frame(&mut bytes);
        assert_eq!(wire::view_heartbeats(&bytes[HEADER_BYTES..]).is_ok(), allowed, "{count} heartbeats");
        bytes.clear();
        let groups = vec![HeartbeatAnswer::default(); count];
        HeartbeatAnswersRef { sent_us: 1, shield_us: 2, groups: &groups }.append_frame(&mut bytes);
        assert_eq!(wire::view_heartbeat_answers(&bytes[HEADER_BYTES..]).is_ok(), allowed, "{count} answers");
    }
}
