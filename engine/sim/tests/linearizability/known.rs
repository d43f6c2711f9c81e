//! Histories written by hand: each kind of lie, and the honest ones that look like it.
//!
//! Off the data path.

use ringraft_net::wire::OperationResult;
use ringraft_sim::linearizability::{Rule, Summary, Violation, check, check_without_positions};

use crate::script::{ABSENT, NEW, REPLACED, SWAPPED, Script, compare, delete, found, get, put};

fn rule(script: &Script) -> Result<Summary, Rule> {
    check(&script.history).map_err(|violation| violation.rule)
}

fn violation(script: &Script) -> Violation {
    check(&script.history).expect_err("this history is bad")
}

fn accepted(script: &Script) -> Summary {
    assert_eq!(check_without_positions(&script.history).map(|summary| summary.undecided), Ok(0));
    check(&script.history).unwrap_or_else(|violation| panic!("{violation}"))
}

#[test]
fn overlapping_calls_may_take_effect_in_either_order() {
    let mut script = Script::default();
    script.write((10, 50), (2, 1), vec![put("x", "1")], vec![REPLACED]);
    script.write((10, 50), (2, 0), vec![put("x", "2")], vec![NEW]);
    script.read((20, 60), 2, "x", found("1")).read((0, 60), 1, "x", ABSENT);
    assert_eq!(accepted(&script), Summary { answered: 4, ..Summary::default() });
}

#[test]
fn a_read_that_is_older_than_an_acknowledged_write_is_caught() {
    let mut script = Script::default();
    script.write((10, 20), (1, 0), vec![put("x", "1")], vec![NEW]);
    script.write((30, 40), (2, 0), vec![put("x", "2")], vec![REPLACED]);
    script.read((50, 60), 1, "x", found("1"));
    let violation = violation(&script);
    assert_eq!(violation.rule, Rule::NotLinearizable);
    let text = violation.to_string();
    assert!(text.contains("call 2 of client 2, from 50 to 60, after 0:1: get \"x\" -> \"1\""), "{text}");
    assert!(text.contains("put \"x\" \"1\" -> new"), "who wrote what it saw: {text}");
    script.stale();
    accepted(&script);
}

#[test]
fn a_lost_write_is_caught() {
    let mut script = Script::default();
    script.write((10, 20), (1, 0), vec![put("x", "1")], vec![NEW]);
    script.read((30, 40), 1, "x", ABSENT);
    assert_eq!(rule(&script), Err(Rule::NotLinearizable));
    let mut script = Script::default();
    script.write((10, 20), (1, 0), vec![put("x", "1")], vec![NEW]);
    script.write((30, 40), (2, 0), vec![put("x", "2")], vec![NEW]);
    assert_eq!(rule(&script), Err(Rule::NotLinearizable), "the second put should have replaced the first");
}

#[test]
fn a_write_that_took_effect_twice_is_caught() {
    let mut script = Script::default();
    script.write((10, 20), (1, 0), vec![put("x", "1")], vec![NEW]);
    script.write((30, 40), (2, 0), vec![put("x", "2")], vec![REPLACED]);
    script.read((50, 60), 3, "x", found("1"));
    assert_eq!(rule(&script), Err(Rule::NotLinearizable));
    let mut script = Script::default();
    script.unknown(10, vec![put("x", "1")]);
    script.write((30, 40), (2, 0), vec![put("x", "2")], vec![REPLACED]);
    script.read((50, 60), 3, "x", found("1"));
    assert_eq!(rule(&script), Err(Rule::NotLinearizable), "an unknown write takes effect once, too");
}

#[test]
fn a_read_from_the_future_is_caught() {
    let mut script = Script::default();
    script.read((10, 20), 1, "x", found("1"));
    script.write((30, 40), (1, 0), vec![put("x", "1")], vec![NEW]);
    assert_eq!(rule(&script), Err(Rule::NotLinearizable));
    script.history.calls.truncate(1);
    assert_eq!(rule(&script), Err(Rule::NotLinearizable), "or from nowhere");
    script.unknown(15, vec![put("x", "1")]);
    accepted(&script);
}

#[test]
fn a_failed_write_has_no_effect() {
    let mut script = Script::default();
    script.failed((10, 20), vec![put("x", "1")]).read((30, 40), 1, "x", found("1"));
    let violation = violation(&script);
    assert_eq!((violation.rule, violation.calls.clone()), (Rule::NotLinearizable, vec![1, 0]), "{violation}");
}

#[test]
fn requests_of_several_operations_are_one() {
    let both = || vec![put("a", "1"), put("b", "1")];
    let mut script = Script::default();
    script.write((10, 20), (1, 0), both(), vec![NEW, NEW]);
    script.write((30, 60), (2, 0), vec![put("a", "2"), put("b", "2")], vec![REPLACED, REPLACED]);
    let torn = vec![found("2"), found("1")];
    script.write((30, 60), (2, u32::MAX), vec![get("a"), get("b")], torn);
    assert_eq!(rule(&script), Err(Rule::NotLinearizable), "half of a request was seen");

    let mut script = Script::default();
    script.write((10, 20), (1, 0), both(), vec![NEW, NEW]);
    let current = OperationResult::Compared { swapped: false, current: Some(b"1".to_vec()) };
    let refused = vec![OperationResult::NotApplied, current];
    script.write((30, 40), (2, 0), vec![put("a", "3"), compare("b", Some("2"), "3")], refused);
    script.read((50, 60), 2, "a", found("1"));
    accepted(&script);
    script.read((50, 60), 2, "a", found("3"));
    assert_eq!(rule(&script), Err(Rule::NotLinearizable), "a refused request has no effect at all");
}

#[test]
fn operations_of_one_request_are_in_their_order() {
    let mut script = Script::default();
    script.write((10, 20), (1, 0), vec![put("a", "1"), put("a", "2")], vec![NEW, REPLACED]);
    script.read((30, 40), 1, "a", found("2"));
    accepted(&script);
    script.read((30, 40), 1, "a", found("1"));
    assert_eq!(rule(&script), Err(Rule::NotLinearizable));
}

#[test]
fn positions_that_lie_are_told_from_results_that_lie() {
    let mut script = Script::default();
    script.write((10, 50), (1, 0), vec![put("x", "1")], vec![NEW]);
    script.write((10, 50), (2, 0), vec![put("x", "2")], vec![REPLACED]);
    script.read((60, 70), 2, "x", found("2"));
    accepted(&script);
    let mut swapped = Script::default();
    swapped.write((10, 50), (2, 0), vec![put("x", "1")], vec![NEW]);
    swapped.write((10, 50), (1, 0), vec![put("x", "2")], vec![REPLACED]);
    swapped.read((60, 70), 2, "x", found("2"));
    assert_eq!(rule(&swapped), Err(Rule::PositionsAgainstResults));
    assert!(check_without_positions(&swapped.history).is_ok());

    let mut backwards = Script::default();
    backwards.write((10, 20), (2, 0), vec![put("x", "1")], vec![NEW]);
    backwards.write((30, 40), (1, 0), vec![put("y", "1")], vec![NEW]);
    let violation = violation(&backwards);
    assert_eq!(violation.rule, Rule::PositionsAgainstTime);
    assert_eq!(violation.reason, "call 1 stands before call 0 but began after it had ended");

    let mut twice = Script::default();
    twice.write((10, 20), (1, 0), vec![put("x", "1")], vec![NEW]);
    twice.write((10, 20), (1, 0), vec![put("y", "1")], vec![NEW]);
    assert_eq!(rule(&twice), Err(Rule::SamePlace));
}

#[test]
fn unknown_writes_explain_what_they_can_and_no_more() {
    let mut script = Script::default();
    script.unknown(10, vec![put("x", "1")]).unknown(10, vec![put("x", "2")]);
    script.read((20, 30), 5, "x", ABSENT).read((40, 50), 6, "x", found("2")).read((60, 70), 7, "x", found("1"));
    assert_eq!(accepted(&script).unknown, 2);
    script.read((80, 90), 8, "x", found("2"));
    assert_eq!(rule(&script), Err(Rule::NotLinearizable), "each takes effect once");

    let mut script = Script::default();
    script.unknown(10, vec![compare("x", Some("1"), "2")]).unknown(10, vec![compare("x", Some("2"), "3")]);
    script.write((10, 20), (1, 0), vec![put("x", "1")], vec![NEW]);
    script.read((30, 40), 5, "x", found("3"));
    accepted(&script);
    script.unknown(50, vec![delete("x")]).read((60, 70), 6, "x", ABSENT).read((80, 90), 7, "x", ABSENT);
    accepted(&script);

    let mut script = Script::default();
    script.unknown(10, vec![put("x", "u"), put("y", "u")]);
    script.write((20, 30), (1, 0), vec![put("y", "1")], vec![REPLACED]);
    script.read((40, 50), 1, "x", found("u")).read((40, 50), 1, "y", found("1"));
    accepted(&script);
    script.read((60, 70), 1, "y", found("u"));
    assert_eq!(rule(&script), Err(Rule::NotLinearizable), "it took effect before y was written again");
}

#[test]
fn unknown_writes_of_several_keys_have_an_order_among_themselves() {
    let mut script = Script::default();
    script.unknown(10, vec![put("a", "1"), put("b", "1")]).unknown(10, vec![delete("b"), put("c", "2")]);
    script.write((20, 30), (5, 0), vec![delete("c")], vec![OperationResult::Deleted { existed: true }]);
    script.read((40, 50), 5, "b", ABSENT).read((60, 70), 6, "a", found("1"));
    accepted(&script);
    script.read((80, 90), 7, "b", ABSENT);
    accepted(&script);
    script.read((80, 90), 7, "c", found("2"));
    assert_eq!(rule(&script), Err(Rule::NotLinearizable));
}

#[test]
fn an_unknown_write_is_not_seen_before_it_began() {
    let mut script = Script::default();
    script.read((10, 20), 3, "x", found("1")).unknown(30, vec![put("x", "1")]);
    assert_eq!(rule(&script), Err(Rule::NotLinearizable));
    script.stale();
    script.history.calls[0].consistency = ringraft_net::wire::Consistency::Stale;
    assert_eq!(rule(&script), Err(Rule::StaleRead));
    assert!(check_without_positions(&script.history).is_err());
}

#[test]
fn a_stale_read_shows_one_committed_moment() {
    let mut script = Script::default();
    script.write((10, 20), (1, 0), vec![put("x", "1"), put("y", "1")], vec![NEW, NEW]);
    script.write((30, 40), (2, 0), vec![put("x", "2"), put("y", "2")], vec![REPLACED, REPLACED]);
    script.write((50, 60), (1, u32::MAX), vec![get("x"), get("y")], vec![found("1"), found("1")]).stale();
    script.write((70, 80), (0, u32::MAX), vec![get("x"), get("y")], vec![ABSENT, ABSENT]).stale();
    assert_eq!(accepted(&script).stale_reads, 2, "older than the one before: not promised");
    let mut torn = Script::default();
    torn.history.calls.extend_from_slice(&script.history.calls[..2]);
    torn.write((50, 60), (1, u32::MAX), vec![get("x"), get("y")], vec![found("1"), found("2")]).stale();
    assert_eq!(rule(&torn), Err(Rule::StaleRead), "two moments in one read");
    script.read((50, 60), 1, "x", found("2")).stale();
    assert_eq!(rule(&script), Err(Rule::StaleRead), "not the moment it names");
}

#[test]
fn what_a_stale_read_saw_is_committed() {
    let mut script = Script::default();
    script.write((10, 90), (1, 0), vec![put("x", "1")], vec![NEW]);
    script.read((20, 30), 1, "x", found("1")).stale().read((40, 50), 0, "x", ABSENT);
    assert_eq!(rule(&script), Err(Rule::PositionsAgainstTime));
    let mut future = Script::default();
    future.read((10, 20), 1, "x", found("1")).stale();
    future.write((30, 40), (1, 0), vec![put("x", "1")], vec![NEW]);
    assert_eq!(rule(&future), Err(Rule::PositionsAgainstTime), "not even a stale read sees the future");
    assert_eq!(check_without_positions(&future.history).map_err(|violation| violation.rule), Err(Rule::StaleRead));
}

#[test]
fn answers_that_are_none_are_refused() {
    let mut script = Script::default();
    script.write((10, 20), (1, 0), vec![put("x", "1")], vec![ABSENT]);
    assert_eq!(rule(&script), Err(Rule::Malformed));
    let mut script = Script::default();
    script.write((10, 20), (1, 0), vec![put("x", "1")], vec![]);
    assert_eq!(rule(&script), Err(Rule::Malformed));
    let mut script = Script::default();
    script.write((20, 10), (1, 0), vec![put("x", "1")], vec![NEW]);
    assert_eq!(rule(&script), Err(Rule::Malformed));
    let mut script = Script::default();
    script.write((10, 20), (1, 0), vec![put("x", "1")], vec![NEW]).read((30, 40), 1, "x", found("1"));
    let Some(ringraft_sim::history::Ended {
        outcome: ringraft_sim::history::CallOutcome::Done { position, .. }, ..
    }) = &mut script.history.calls[1].ended
    else {
        panic!("it is done");
    };
    position.group = 7;
    assert_eq!(rule(&script), Err(Rule::TwoGroups));
}

#[test]
fn a_session_is_given_once() {
    let open = || vec![ringraft_net::wire::Operation::OpenSession { group: 0 }];
    let mut script = Script::default();
    script.write((10, 20), (1, 0), open(), vec![OperationResult::Session { client: 5 }]);
    script.write((10, 20), (1, 1), open(), vec![OperationResult::Session { client: 6 }]);
    accepted(&script);
    script.write((10, 20), (1, 2), open(), vec![OperationResult::Session { client: 6 }]);
    assert_eq!(rule(&script), Err(Rule::SessionTwice));
}

#[test]
fn a_chain_of_compare_and_sets_counts_each_once() {
    let mut script = Script::default();
    script.write((0, 5), (1, 0), vec![compare("x", None, "0")], vec![SWAPPED]);
    for number in 0..50_u64 {
        let (expected, value) = (number.to_string(), (number + 1).to_string());
        script.write((10, 1_000), (2, number as u32), vec![compare("x", Some(&expected), &value)], vec![SWAPPED]);
    }
    script.read((1_100, 1_200), 2, "x", found("50"));
    accepted(&script);
    let again = script.history.calls[20].clone();
    script.history.calls.push(again);
    let Some(ended) = &mut script.history.calls[52].ended else { panic!("it is done") };
    let ringraft_sim::history::CallOutcome::Done { position, .. } = &mut ended.outcome else { panic!("it is done") };
    position.position = 60;
    assert_eq!(rule(&script), Err(Rule::NotLinearizable));
}
