//! Tests of sessions on their own: the window, what is forgotten when, the bounds.
//!
//! Off the data path.

use super::*;

const PUT: &[OperationResultRef<'_>] = &[OperationResultRef::Put { replaced: false }];

fn sessions(change: impl FnOnce(&mut Limits)) -> Sessions {
    let mut limits = Limits::default();
    change(&mut limits);
    Sessions::new(&limits)
}

/// Runs one request through; what it was to the session as a word.
fn request(sessions: &mut Sessions, client: u64, sequence: u64, acknowledged: u64, place: Place) -> &'static str {
    request_with(sessions, client, sequence, acknowledged, place, PUT)
}

fn request_with(
    sessions: &mut Sessions,
    client: u64,
    sequence: u64,
    acknowledged: u64,
    place: Place,
    results: &[OperationResultRef<'_>],
) -> &'static str {
    let word = match sessions.begin(client, sequence, acknowledged, place) {
        Begun::Fresh(handle) => {
            sessions.record(handle, sequence, place, results);
            "fresh"
        }
        Begun::Repeated(_) => "repeated",
        Begun::Unknown => "unknown",
        Begun::Acknowledged => "acknowledged",
        Begun::WindowFull => "full",
    };
    assert_eq!(sessions.recompute(), (sessions.hash(), sessions.bytes()));
    word
}

fn at(index: u64) -> Place {
    Place::new(index, 0)
}

#[test]
fn an_id_is_the_place_of_its_opening_and_never_zero() {
    let mut sessions = sessions(|_| {});
    assert_eq!(sessions.open(Place::new(1, 0)), (1 << 16) + 1);
    assert_eq!(sessions.open(Place::new(1, 7)), (1 << 16) + 8);
    assert_eq!(sessions.open(Place::new(2, 65_534)), (2 << 16) + 65_535);
    assert_eq!((Place::new(9, 5).index(), Place::new(9, 5).position()), (9, 5));
}

#[test]
fn a_repeated_sequence_gets_the_first_answer_until_it_is_acknowledged() {
    let mut sessions = sessions(|_| {});
    let client = sessions.open(at(1));
    assert_eq!(request(&mut sessions, client, 1, 1, at(2)), "fresh");
    assert_eq!(request(&mut sessions, client, 1, 1, at(3)), "repeated");
    match sessions.begin(client, 1, 1, at(4)) {
        Begun::Repeated(answer) => answer.with(|place, results| assert_eq!((place, results), (at(2), PUT))),
        other => panic!("{other:?}"),
    }
    assert_eq!(request(&mut sessions, client, 2, 2, at(5)), "fresh");
    assert_eq!(request(&mut sessions, client, 1, 1, at(6)), "acknowledged");
    assert_eq!(request(&mut sessions, 77, 1, 1, at(7)), "unknown");
}

#[test]
fn sequences_may_come_in_any_order_within_the_window() {
    let mut sessions = sessions(|limits| limits.session_window_max = 8);
    let client = sessions.open(at(1));
    assert_eq!(request(&mut sessions, client, 5, 1, at(2)), "fresh");
    assert_eq!(request(&mut sessions, client, 3, 1, at(3)), "fresh");
    assert_eq!(request(&mut sessions, client, 8, 1, at(4)), "fresh");
    assert_eq!(request(&mut sessions, client, 9, 1, at(5)), "full");
    assert_eq!(request(&mut sessions, client, u64::MAX, 1, at(5)), "full");
    for (sequence, word) in
        [(1, "fresh"), (2, "fresh"), (3, "repeated"), (4, "fresh"), (5, "repeated"), (8, "repeated")]
    {
        assert_eq!(request(&mut sessions, client, sequence, 1, at(6)), word, "{sequence}");
    }
    assert_eq!(request(&mut sessions, client, 9, 4, at(7)), "fresh", "the window moved");
    assert_eq!(sessions.bytes(), 6 * ANSWER_BYTES, "sequences 4 to 9");
    assert_eq!(request(&mut sessions, client, 20, 20, at(8)), "fresh", "everything below is forgotten");
    assert_eq!(sessions.bytes(), ANSWER_BYTES);
    assert_eq!(request(&mut sessions, client, u64::MAX, u64::MAX, at(9)), "fresh");
}

#[test]
fn the_session_unused_for_longest_goes_first() {
    let mut sessions = sessions(|limits| limits.sessions_max = 3);
    let clients: Vec<u64> = (1..=3).map(|index| sessions.open(at(index))).collect();
    assert_eq!(request(&mut sessions, clients[0], 1, 1, at(4)), "fresh");
    let fourth = sessions.open(at(5));
    assert_eq!(sessions.len(), 3);
    assert_eq!(request(&mut sessions, clients[1], 1, 1, at(6)), "unknown");
    assert_eq!(request(&mut sessions, clients[0], 1, 1, at(7)), "repeated");
    assert_eq!(request(&mut sessions, fourth, 1, 1, at(8)), "fresh");
    sessions.open(at(9));
    assert_eq!(request(&mut sessions, clients[2], 1, 1, at(10)), "unknown");
    assert_eq!(request(&mut sessions, clients[0], 2, 1, at(11)), "fresh");
}

#[test]
fn bytes_of_answers_are_bounded_by_forgetting_others_and_then_by_the_window() {
    let mut sessions = sessions(|limits| limits.sessions_bytes_max = 8000);
    let value = [7; 1000];
    let large = [OperationResultRef::Value(Some(&value))];
    let (first, second) = (sessions.open(at(1)), sessions.open(at(2)));
    assert_eq!(request_with(&mut sessions, first, 1, 1, at(3), &large), "fresh");
    let mut words = Vec::new();
    for sequence in 1..=4 {
        words.push(request_with(&mut sessions, second, sequence, 1, at(3 + sequence), &large));
    }
    assert_eq!(words, ["fresh", "fresh", "full", "full"], "a quarter of the bound for one session");
    assert_eq!(request_with(&mut sessions, second, 4, 3, at(9), &large), "fresh");
    assert_eq!(request_with(&mut sessions, second, 3, 3, at(10), &large), "fresh", "the lowest is always taken");
    for index in 11..30 {
        let client = sessions.open(at(index));
        assert_eq!(request_with(&mut sessions, client, 1, 1, at(index), &large), "fresh");
        assert!(sessions.bytes() <= 8000);
    }
    assert_eq!(request(&mut sessions, first, 1, 1, at(40)), "unknown");
}

#[test]
fn every_kind_of_result_is_kept_as_it_was() {
    use OperationResultRef::*;
    let kinds: Vec<Vec<OperationResultRef<'_>>> = vec![
        vec![Put { replaced: true }],
        vec![Deleted { existed: true }],
        vec![Deleted { existed: false }],
        vec![Value(None)],
        vec![Value(Some(b""))],
        vec![Value(Some(b"value"))],
        vec![Compared { swapped: true, current: None }],
        vec![Compared { swapped: false, current: None }],
        vec![Compared { swapped: false, current: Some(b"other") }],
        vec![Put { replaced: true }, NotApplied, Value(Some(b"x")), Session { client: 9 }],
    ];
    let mut sessions = sessions(|_| {});
    let client = sessions.open(at(1));
    let mut hashes = Vec::new();
    for (sequence, results) in (1..).zip(&kinds) {
        assert_eq!(request_with(&mut sessions, client, sequence, 1, at(2), results), "fresh");
        match sessions.begin(client, sequence, 1, at(2)) {
            Begun::Repeated(answer) => answer.with(|_, kept| assert_eq!(kept, &results[..])),
            other => panic!("{other:?}"),
        }
        hashes.push(Answer::new(at(2), results).hash(client, 1));
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), kinds.len(), "every kind has its hash");
}
