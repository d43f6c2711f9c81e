//! A tick that is checked against sleeping: what a core calls quiet must leave what `skip_ticks` leaves.
//!
//! Off the data path; tests only.
//!
//! Relations: every tick of every cluster in these tests goes through here; what a quiet tick says was to be said before.
//!
//! Deliberately absent: sleeping itself; the cluster's own cores are ticked one by one.

use ringraft_raft::{RaftCore, Ready};

pub fn tick(core: &mut RaftCore) {
    let quiet = core.quiet_ticks();
    let picked = core.term() + core.commit_index() + core.last().index + u64::from(quiet);
    if quiet == 0 || !picked.is_multiple_of(4) {
        return core.tick(); // comparing is slow
    }
    let (mut slept, owes) = (core.clone(), core.clone().ready(&mut Ready::new()));
    core.tick();
    slept.skip_ticks(1);
    assert_eq!(format!("{core:?}"), format!("{slept:?}"), "a quiet tick changes nothing but counts");
    assert!(owes || !slept.ready(&mut Ready::new()), "and says nothing: {core:?}");
    assert!(core.quiet_ticks() >= quiet - 1, "{quiet} quiet ticks were announced, then {}", core.quiet_ticks());
}
