//! Ticks and messages that are checked against sleeping: what a core that dozes says and becomes is what it does awake.
//!
//! Off the data path; tests only.
//!
//! Relations: every tick and every message without entries of every cluster in these tests goes through here.
//!
//! Deliberately absent: long sleeps (`tests/doze.rs`); the cluster's own cores stay awake.

use ringraft_raft::{Dozed, Message, NodeId, RaftCore, Ready};

/// What a core says, in a `ready` that may say nothing else.
pub fn said(core: &mut RaftCore) -> Vec<(NodeId, Message)> {
    let mut ready = Ready::new();
    core.ready(&mut ready);
    assert!(ready.has_only_messages() && ready.after_flush.is_empty(), "a doze is no news: {ready:?}");
    ready.messages
}

pub fn assert_same(mut awake: RaftCore, mut slept: RaftCore) {
    assert_eq!(said(&mut awake), [], "all was said");
    assert_eq!(said(&mut slept), [], "all was said in the doze");
    assert_eq!(format!("{awake:?}"), format!("{slept:?}"));
}

/// Comparing is slow.
fn is_picked(core: &RaftCore) -> bool {
    (core.term() + core.commit_index() + core.last().index).is_multiple_of(7) && {
        let mut told = core.clone();
        !told.ready(&mut Ready::new()) // the host took the last `ready`
    }
}

pub fn tick(core: &mut RaftCore) {
    if let Some(mut doze) = core.doze().filter(|_| is_picked(core)) {
        let (mut awake, mut slept, mut heard) = (core.clone(), core.clone(), Vec::new());
        awake.tick();
        if doze.tick(1, 0, |to, message| heard.push((to, message))) {
            slept.wake(&doze, 1);
            assert_eq!(said(&mut awake), heard);
            assert_same(awake, slept);
        }
    }
    core.tick();
}

pub fn step(core: &mut RaftCore, from: NodeId, message: Message) {
    if let Some(mut doze) = core.doze().filter(|_| is_picked(core)) {
        let (mut awake, mut slept) = (core.clone(), core.clone());
        awake.step(from, message);
        let heard = match doze.step(0, from, &message) {
            Dozed::Wakes => None,
            Dozed::Quiet => Some(Vec::new()),
            Dozed::Says(answer) => Some(vec![(from, answer)]),
        };
        if let Some(heard) = heard {
            slept.wake(&doze, 0);
            assert_eq!(said(&mut awake), heard);
            assert_same(awake, slept);
        }
    }
    core.step(from, message);
}
