//! Tests of snapshots: taken in slices among any requests, loaded from bytes cut anywhere, damaged in any place.
//!
//! Off the data path.

use super::*;

/// Limits that make sessions go, windows fill and answers be too large.
fn small_limits() -> Limits {
    Limits {
        sessions_max: 2,
        session_window_max: 4,
        sessions_bytes_max: 3_000,
        answer_bytes_max: 300,
        ..Limits::default()
    }
}

fn small() -> StateMachine {
    StateMachine::new(GroupId(3), small_limits())
}

/// Takes the rest of a running snapshot.
fn finish(machine: &mut StateMachine, out: &mut Vec<u8>, bytes_max: usize) {
    let mut slices = 0;
    while machine.snapshot_slice(out, bytes_max) {
        slices += 1;
        assert!(slices < 100_000, "a snapshot that does not end");
    }
    assert!(!machine.snapshot_runs());
    assert_eq!(machine.snapshot_pending_bytes(), 0);
}

fn taken(machine: &mut StateMachine) -> (SnapshotHead, Vec<u8>) {
    let (head, mut out) = (machine.begin_snapshot().unwrap(), Vec::new());
    finish(machine, &mut out, 1 << 20);
    (head, out)
}

fn load(limits: Limits, head: SnapshotHead, stream: &[u8], portion: usize) -> Result<StateMachine, LoadError> {
    let mut loader = StateLoader::new(GroupId(3), limits, head);
    for bytes in stream.chunks(portion) {
        loader.push(bytes)?;
    }
    loader.finish()
}

/// Everything a machine holds, in an order that does not depend on its tables: keys, and sessions with their answers.
fn content(machine: &mut StateMachine) -> Vec<Vec<u8>> {
    let (_, stream) = taken(machine);
    let (bounds, mut parts, mut rest) = (records::Bounds::new(&Limits::default()), Vec::<Vec<u8>>::new(), &stream[..]);
    while !rest.is_empty() {
        let (record, behind) = rest.split_at(records::wanted(rest, &bounds).unwrap());
        match (records::decode(record), parts.last_mut()) {
            (records::Record::Answer { .. }, Some(session)) => session.extend_from_slice(record),
            _ => parts.push(record.to_vec()),
        }
        rest = behind;
    }
    parts.sort_unstable();
    parts
}

/// Operations on more keys and with longer values than elsewhere.
fn operation() -> impl Strategy<Value = Operation> {
    let key = (0..40_u32).prop_map(|number| format!("key {number}"));
    let value = (0..200_usize).prop_map(|length| "v".repeat(length));
    (0..5, key, value, any::<bool>()).prop_map(|(kind, key, value, absent)| match kind {
        0 | 1 => put(&key, &value),
        2 => get(&key),
        3 => delete(&key),
        _ => cas(&key, if absent { None } else { Some("v") }, &value),
    })
}

#[derive(Clone, Debug)]
enum Event {
    Entry(Vec<Step>),
    Slice(usize),
}

fn entry() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step_of(operation), 0..4)
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![3 => entry().prop_map(Event::Entry), 2 => (0..1_000_usize).prop_map(Event::Slice)]
}

/// Applies an entry of what `steps` send, the clients learning their ids.
fn send(machine: &mut StateMachine, histories: &mut Histories, steps: &[Step]) -> (Vec<Request>, Vec<Reply>) {
    let sent: Vec<_> = steps.iter().filter_map(|step| histories.request(step).map(|request| (step, request))).collect();
    let requests: Vec<Request> = sent.iter().map(|(_, request)| request.clone()).collect();
    let replies = apply(machine, &requests);
    for ((step, _), reply) in sent.iter().zip(&replies) {
        if let (Step::Open { client }, Outcome::Done(results)) = (step, &reply.outcome)
            && let [OperationResult::Session { client: id }] = results[..]
        {
            histories.clients[*client] = (id, Vec::new());
        }
    }
    (requests, replies)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_loaded_is_the_state_as_of_the_beginning_whatever_was_applied_meanwhile(
        before in prop::collection::vec(entry(), 0..60),
        during in prop::collection::vec(event(), 0..80),
        portion in 1..500_usize,
    ) {
        let (mut machine, mut twin) = (small(), small());
        let mut histories = Histories { clients: Default::default() };
        for steps in &before {
            let (requests, _) = send(&mut machine, &mut histories, steps);
            apply(&mut twin, &requests);
        }
        let (head, mut stream, mut later) = (machine.begin_snapshot().unwrap(), Vec::new(), Vec::new());
        prop_assert_eq!(head, twin.snapshot_head());
        prop_assert_eq!(machine.begin_snapshot(), Err(SnapshotRuns));
        for event in &during {
            match event {
                Event::Entry(steps) => later.push(send(&mut machine, &mut histories, steps)),
                Event::Slice(bytes) if machine.snapshot_runs() => {
                    machine.snapshot_slice(&mut stream, *bytes);
                }
                Event::Slice(_) => {}
            }
        }
        if machine.snapshot_runs() {
            finish(&mut machine, &mut stream, 700);
        }
        let mut loaded = load(small_limits(), head, &stream, portion).unwrap();
        prop_assert_eq!((loaded.digest(), loaded.last_applied_id()), (twin.digest(), twin.last_applied_id()));
        prop_assert_eq!((loaded.recompute_digest(), loaded.bytes()), (twin.digest(), twin.bytes()));
        prop_assert_eq!(content(&mut loaded), content(&mut twin));
        // It goes on like the one the snapshot is of: the same answers, the same sessions forgotten.
        for (requests, replies) in &later {
            prop_assert_eq!(&apply(&mut loaded, requests), replies);
        }
        prop_assert_eq!(loaded.digest(), machine.digest());
        prop_assert_eq!(content(&mut loaded), content(&mut machine));
    }

    #[test]
    fn a_byte_changed_or_missing_anywhere_is_seen(
        steps in prop::collection::vec(entry(), 1..30),
        at in any::<prop::sample::Index>(), change in 1..=255_u8, cut in any::<bool>(), portion in 1..100_usize,
    ) {
        let (mut machine, mut histories) = (small(), Histories { clients: Default::default() });
        apply(&mut machine, &[plain(vec![put("one", "1")])]);
        for steps in &steps {
            send(&mut machine, &mut histories, steps);
        }
        let (head, mut stream) = taken(&mut machine);
        let at = at.index(stream.len());
        if cut { stream.truncate(at) } else { stream[at] ^= change }
        let error = load(small_limits(), head, &stream, portion).unwrap_err();
        prop_assert!(error.to_string().contains("at byte"), "{}", error);
    }

    #[test]
    fn no_bytes_make_loading_panic(
        bytes in prop::collection::vec(prop_oneof![0..5_u8, any::<u8>()], 0..300), portion in 1..50_usize
    ) {
        let head = SnapshotHead { last: EntryId::new(1, 1 << 20), state_hash: 0, key_count: 5, session_count: 5 };
        let _ = load(small_limits(), head, &bytes, portion);
    }
}

/// A machine with a session of two answers, one of them large, and two keys.
fn example() -> StateMachine {
    let mut machine = machine(|_| {});
    let client = open(&mut machine);
    apply(&mut machine, &[in_session(client, 1, 1, put("key", "value")), in_session(client, 3, 1, get("key"))]);
    apply(&mut machine, &[plain(vec![put("a", "1"), put("b", ""), delete("key")])]);
    machine
}

#[test]
fn an_empty_state_is_a_stream_of_no_bytes() {
    let mut machine = small();
    let head = machine.begin_snapshot().unwrap();
    let mut out = Vec::new();
    assert!(!machine.snapshot_slice(&mut out, 0));
    assert!(out.is_empty());
    let loaded = load(small_limits(), head, &out, 1).unwrap();
    assert_eq!(loaded.digest(), machine.digest());
}

#[test]
#[should_panic(expected = "did not begin")]
fn a_slice_needs_a_snapshot() {
    small().snapshot_slice(&mut Vec::new(), 1);
}

#[test]
fn what_is_kept_aside_is_counted_and_goes_with_the_snapshot() {
    let mut machine = example();
    let content_before = content(&mut machine);
    machine.begin_snapshot().unwrap();
    assert_eq!(machine.snapshot_pending_bytes(), 0);
    apply(&mut machine, &[plain(vec![put("a", "2")])]);
    assert_eq!(machine.snapshot_pending_bytes(), 17 + 2);
    apply(&mut machine, &[plain(vec![put("a", "3"), put("new", "x"), delete("new")])]);
    assert_eq!(machine.snapshot_pending_bytes(), 17 + 2, "once");
    machine.abort_snapshot();
    assert_eq!((machine.snapshot_runs(), machine.snapshot_pending_bytes()), (false, 0));
    machine.abort_snapshot();
    apply(&mut machine, &[plain(vec![put("b", "2")])]);
    assert_eq!(machine.snapshot_pending_bytes(), 0);
    assert_ne!(content(&mut machine), content_before);
}

#[test]
fn sessions_forgotten_before_the_beginning_are_not_in_it() {
    let limits = Limits { sessions_bytes_max: 1_000, ..Limits::default() };
    let mut machine = StateMachine::new(GroupId(3), limits);
    let (first, second) = (open(&mut machine), open(&mut machine));
    apply(&mut machine, &[plain(vec![put("k", &"v".repeat(600))])]);
    apply(&mut machine, &[in_session(first, 1, 1, get("k")), in_session(second, 1, 1, get("k"))]);
    assert_eq!(machine.session_count(), 1, "the answers of both do not fit, and nothing took the first one's place");
    let (head, stream) = taken(&mut machine);
    let mut loaded = load(limits, head, &stream, 100).unwrap();
    assert_eq!(content(&mut loaded), content(&mut machine));
    for machine in [&mut machine, &mut loaded] {
        assert_eq!(one(machine, in_session(first, 2, 1, get("k"))), Outcome::SessionExpired);
        assert!(matches!(one(machine, in_session(second, 1, 1, get("k"))), Outcome::Done(_)));
    }
    assert_eq!(loaded.digest(), machine.digest());
}

/// Answers come back at their first place, and so does the gap between them.
#[test]
fn a_loaded_session_answers_retries() {
    let mut machine = example();
    let (head, stream) = taken(&mut machine);
    let mut loaded = load(Limits::default(), head, &stream, 3).unwrap();
    let client = 1 << 16 | 1;
    for request in [
        in_session(client, 1, 1, put("key", "value")),
        in_session(client, 3, 1, get("key")),
        in_session(client, 2, 1, get("a")),
        in_session(client, 2, 2, get("b")),
    ] {
        let request = [request];
        let (first, second) = (apply(&mut machine, &request), apply(&mut loaded, &request));
        assert_eq!(first, second);
    }
    assert_eq!(loaded.digest(), machine.digest());
}

#[test]
fn a_stream_that_is_not_what_its_head_says_is_refused_with_the_reason() {
    let mut machine = example();
    let (head, stream) = taken(&mut machine);
    let refused = |head: SnapshotHead, stream: &[u8], limits: Limits| {
        load(limits, head, stream, usize::MAX).map(|machine| machine.digest()).unwrap_err().problem
    };
    let default = Limits::default();
    let says = |change: fn(&mut SnapshotHead)| {
        let mut head = head;
        change(&mut head);
        refused(head, &stream, default)
    };
    assert_eq!(says(|head| head.key_count += 1), LoadProblem::Count { what: "keys", found: 2, expected: 3 });
    assert_eq!(says(|head| head.key_count -= 1), LoadProblem::Keys { key_count: 1 });
    assert_eq!(says(|head| head.session_count = 0), LoadProblem::Count { what: "sessions", found: 1, expected: 0 });
    assert!(matches!(says(|head| head.state_hash ^= 1), LoadProblem::Hash { .. }));
    assert!(matches!(says(|head| head.last.index = 1), LoadProblem::Session { .. }));
    assert!(matches!(says(|head| head.last.index = 1 << 48), LoadProblem::Index { .. }));
    let twice = [&stream[..], &stream[..]].concat();
    assert!(matches!(refused(head, &twice, default), LoadProblem::SessionTwice { .. }));
    let mut keys = Vec::new();
    records::append_key(&mut keys, b"a", b"1", 3 << 16);
    let one = SnapshotHead { key_count: 5, ..head };
    assert_eq!(refused(one, &[&keys[..], &keys[..]].concat(), default), LoadProblem::KeyTwice);
    let mut late = Vec::new();
    records::append_key(&mut late, b"z", b"1", 4 << 16);
    assert_eq!(refused(one, &late, default), LoadProblem::Version { index: 4 });
    assert_eq!(refused(head, &[3; 1], default), LoadProblem::Unfinished { bytes: 1 });
    assert_eq!(refused(head, &[4; 1], default), LoadProblem::Record(RecordError::Kind(4)));
}

#[test]
fn sessions_that_cannot_be_are_refused() {
    let head = SnapshotHead { last: EntryId::new(1, 100), state_hash: 0, key_count: 9, session_count: 9 };
    let limits = Limits { sessions_max: 2, session_window_max: 4, sessions_bytes_max: 100, ..Limits::default() };
    let refused = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut stream = Vec::new();
        write(&mut stream);
        load(limits, head, &stream, usize::MAX).map(|machine| machine.digest()).unwrap_err().problem
    };
    let put = [OperationResultRef::Put { replaced: false }];
    let client = |index: u64| index << 16 | 1;
    let session =
        |out: &mut Vec<u8>, index, answers| records::append_session(out, client(index), 1, index << 16, answers);
    let problem = |index| LoadProblem::Session { client: client(index) };
    assert_eq!(refused(&|out| records::append_session(out, 0, 1, 9, 0)), LoadProblem::Session { client: 0 });
    assert_eq!(refused(&|out| session(out, 101, 0)), problem(101));
    assert_eq!(refused(&|out| records::append_session(out, client(5), 1, 4 << 16, 0)), problem(5));
    assert_eq!(refused(&|out| records::append_session(out, client(5), 0, 5 << 16, 0)), problem(5));
    assert_eq!(refused(&|out| session(out, 5, 5)), problem(5));
    let three = |out: &mut Vec<u8>| (1..4).for_each(|index| session(out, index, 0));
    assert_eq!(refused(&three), LoadProblem::SessionsMax { sessions_max: 2 });
    let same_use = |out: &mut Vec<u8>| {
        session(out, 5, 0);
        records::append_session(out, client(4), 1, 5 << 16, 0);
    };
    assert!(matches!(refused(&same_use), LoadProblem::Session { .. }));
    assert_eq!(refused(&|out| records::append_answer(out, 0, 0, &put)), LoadProblem::StrayAnswer);
    assert_eq!(refused(&|out| session(out, 5, 1)), LoadProblem::MissingAnswers { left: 1 });
    let key_instead = |out: &mut Vec<u8>| {
        session(out, 5, 1);
        records::append_key(out, b"k", b"v", 1);
    };
    assert_eq!(refused(&key_instead), LoadProblem::MissingAnswers { left: 1 });
    for (first, second) in [(1, 1), (1, 0), (1, 4), (0, u32::MAX)] {
        let out_of_order = |out: &mut Vec<u8>| {
            session(out, 5, 2);
            [first, second].iter().for_each(|ahead| records::append_answer(out, *ahead, 0, &put));
        };
        assert_eq!(refused(&out_of_order), LoadProblem::Answer { client: client(5), ahead: second });
    }
    let large = vec![1; 1 << 20];
    let too_much = |out: &mut Vec<u8>| {
        session(out, 5, 4);
        let value = [OperationResultRef::Value(Some(&large))];
        (0..4).for_each(|ahead| records::append_answer(out, ahead, 0, &value));
        session(out, 6, 4);
        (0..4).for_each(|ahead| records::append_answer(out, ahead, 0, &value));
    };
    assert!(matches!(refused(&too_much), LoadProblem::SessionsBytesMax { .. }));
}
