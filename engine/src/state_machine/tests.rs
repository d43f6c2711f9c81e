//! Tests of the state machine against a model, and of its determinism.
//!
//! Off the data path.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ringraft_net::wire::{Operation, OperationResult, Outcome, Reply, Request, view_reply};

use super::*;
use crate::payload;

mod snapshot;

fn put(key: &str, value: &str) -> Operation {
    Operation::Put { key: key.into(), value: value.into() }
}

fn get(key: &str) -> Operation {
    Operation::Get { key: key.into() }
}

fn delete(key: &str) -> Operation {
    Operation::Delete { key: key.into() }
}

fn cas(key: &str, expected: Option<&str>, value: &str) -> Operation {
    Operation::CompareAndSet { key: key.into(), expected: expected.map(Into::into), value: value.into() }
}

fn plain(operations: Vec<Operation>) -> Request {
    Request { operations, ..Request::default() }
}

fn in_session(client: u64, sequence: u64, acknowledged: u64, operation: Operation) -> Request {
    Request { client, sequence, acknowledged, operations: vec![operation], ..Request::default() }
}

fn machine(change: impl FnOnce(&mut Limits)) -> StateMachine {
    let mut limits = Limits::default();
    change(&mut limits);
    StateMachine::new(GroupId(3), limits)
}

fn payload_of(requests: &[Request]) -> Vec<u8> {
    let mut payload = Vec::new();
    for request in requests {
        let mut archive = Vec::new();
        request.append_to(&mut archive);
        payload::push_request(&mut payload, &archive);
    }
    payload
}

/// Applies one entry; the replies go through their encoding.
fn apply(machine: &mut StateMachine, requests: &[Request]) -> Vec<Reply> {
    let (index, mut replies) = (machine.last_applied() + 1, Vec::new());
    machine
        .apply_entry(index, 1, &payload_of(requests), |position, outcome| {
            let mut bytes = Vec::new();
            wire::ReplyRef { position, outcome, term: 0 }.append_to(&mut bytes);
            replies.push(view_reply(&bytes).unwrap().to_owned_reply());
        })
        .unwrap();
    assert_eq!(machine.digest(), machine.recompute_digest());
    replies
}

fn one(machine: &mut StateMachine, request: Request) -> Outcome {
    apply(machine, &[request]).remove(0).outcome
}

fn results(outcome: Outcome) -> Vec<OperationResult> {
    match outcome {
        Outcome::Done(results) => results,
        other => panic!("{other:?}"),
    }
}

fn open(machine: &mut StateMachine) -> u64 {
    let outcome = one(machine, plain(vec![Operation::OpenSession { group: 3 }]));
    match results(outcome)[..] {
        [OperationResult::Session { client }] => client,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn each_operation_does_what_it_says() {
    let mut machine = machine(|_| {});
    let mut do_one = |operation| results(one(&mut machine, plain(vec![operation]))).remove(0);
    let value = |text: &str| OperationResult::Value(Some(text.into()));
    assert_eq!(do_one(get("k")), OperationResult::Value(None));
    assert_eq!(do_one(delete("k")), OperationResult::Deleted { existed: false });
    assert_eq!(do_one(put("k", "1")), OperationResult::Put { replaced: false });
    assert_eq!(do_one(put("k", "2")), OperationResult::Put { replaced: true });
    assert_eq!(do_one(get("k")), value("2"));
    let refused =
        |current: Option<&str>| OperationResult::Compared { swapped: false, current: current.map(Into::into) };
    let swapped = OperationResult::Compared { swapped: true, current: None };
    assert_eq!(do_one(cas("k", Some("1"), "3")), refused(Some("2")));
    assert_eq!(do_one(cas("k", None, "3")), refused(Some("2")));
    assert_eq!(do_one(cas("k", Some("2"), "3")), swapped);
    assert_eq!(do_one(get("k")), value("3"));
    assert_eq!(do_one(delete("k")), OperationResult::Deleted { existed: true });
    assert_eq!(do_one(cas("k", Some("3"), "4")), refused(None));
    assert_eq!(do_one(cas("k", None, "")), swapped);
    assert_eq!(do_one(get("k")), value(""));
}

#[test]
fn versions_say_which_request_wrote_a_key_and_can_be_compared() {
    let mut machine = machine(|_| {});
    let compare = |version, value: Option<&str>| Operation::CompareVersion {
        key: "k".into(),
        version,
        value: value.map(Into::into),
    };
    let compared = |swapped, version| vec![OperationResult::ComparedVersion { swapped, version }];
    let mut ask = |operation| results(one(&mut machine, plain(vec![operation])));
    assert_eq!(ask(compare(1 << 16, Some("1"))), compared(false, 0));
    assert_eq!(ask(compare(0, None)), compared(true, 0), "it is absent, and stays so");
    assert_eq!(ask(compare(0, Some("1"))), compared(true, 3 << 16));
    assert_eq!(ask(compare(0, Some("2"))), compared(false, 3 << 16));
    assert_eq!(ask(compare(3 << 16, Some("2"))), compared(true, 5 << 16));
    assert_eq!(ask(compare(5 << 16, None)), compared(true, 0));
    assert_eq!(ask(get("k")), [OperationResult::Value(None)]);
    let client = open(&mut machine);
    let first = one(&mut machine, in_session(client, 1, 1, compare(0, Some("3"))));
    assert_eq!(results(first), compared(true, 9 << 16));
    let again = one(&mut machine, in_session(client, 1, 1, compare(0, Some("3"))));
    assert_eq!(results(again), compared(true, 9 << 16), "a repeated request has its first answer");
    let request = plain(vec![put("a", "1"), compare(1, Some("4")), delete("k")]);
    let not_applied = OperationResult::NotApplied;
    assert_eq!(
        results(one(&mut machine, request)),
        [not_applied.clone(), compared(false, 9 << 16).remove(0), not_applied]
    );
    assert_eq!((machine.get(b"a"), machine.get(b"k")), (None, Some(&b"3"[..])));
    let request = plain(vec![compare(9 << 16, None), compare(0, Some("5")), compare(12 << 16, Some("6"))]);
    let both = [compared(true, 0), compared(true, 12 << 16), compared(true, 12 << 16)].concat();
    assert_eq!(results(one(&mut machine, request)), both, "operations of a request see each other");
}

#[test]
fn what_changed_is_kept_for_those_who_watch_and_nothing_else() {
    let mut machine = machine(|_| {});
    machine.keep_recent(1 << 20);
    let client = open(&mut machine);
    for _ in 0..2 {
        one(&mut machine, in_session(client, 1, 1, put("a", "1"))); // the second is answered from memory
    }
    for request in [
        plain(vec![delete("none")]),
        plain(vec![cas("a", Some("other"), "2")]),
        plain(vec![put("b", "3"), cas("a", Some("other"), "2")]),
        plain(vec![get("a"), put("b", "4"), put("b", "5"), delete("a")]),
        plain(vec![Operation::CompareVersion { key: "x".into(), version: 0, value: None }]),
        plain(vec![Operation::Range { group: 3, start: vec![], end: vec![], limit: 1, keys_only: false }]),
    ] {
        one(&mut machine, request);
    }
    let recent = machine.recent().unwrap();
    let mut bytes = Vec::new();
    let bounds = PortionBounds { changes_max: 100, bytes_max: 1 << 20, passed_bytes_max: 1 << 20 };
    recent.read(recent.seek(1).unwrap(), b"", &bounds, &mut bytes).unwrap();
    let text = |item: &ItemRef<'_>| {
        let (key, value) =
            (item.key.escape_ascii(), item.value.map_or(String::from("-"), |value| value.escape_ascii().to_string()));
        format!("{key}={value} at {}", item.version >> 16)
    };
    let changes: Vec<_> = wire::items::all_items(&bytes).unwrap().iter().map(text).collect();
    assert_eq!(changes, ["a=1 at 2", "b=4 at 7", "b=5 at 7", "a=- at 7"]);
}

#[test]
fn replies_carry_the_place_of_their_request_and_no_ops_count() {
    let mut machine = machine(|_| {});
    assert!(apply(&mut machine, &[]).is_empty());
    let replies = apply(&mut machine, &[plain(vec![put("a", "1")]), plain(vec![put("b", "2")])]);
    let at = |position| Position { group: 3, index: 2, position };
    assert_eq!(replies.iter().map(|reply| reply.position).collect::<Vec<_>>(), [at(0), at(1)]);
    assert_eq!((machine.last_applied_id(), machine.key_count()), (EntryId::new(1, 2), 2));
}

#[test]
fn operations_of_a_request_see_each_other() {
    let mut machine = machine(|_| {});
    let request = plain(vec![get("a"), put("a", "1"), get("a"), cas("a", Some("1"), "2"), delete("a"), get("a")]);
    assert_eq!(
        results(one(&mut machine, request)),
        [
            OperationResult::Value(None),
            OperationResult::Put { replaced: false },
            OperationResult::Value(Some(b"1".to_vec())),
            OperationResult::Compared { swapped: true, current: None },
            OperationResult::Deleted { existed: true },
            OperationResult::Value(None),
        ]
    );
}

#[test]
fn a_failed_compare_and_set_undoes_its_whole_request_and_says_so() {
    let mut machine = machine(|_| {});
    apply(&mut machine, &[plain(vec![put("a", "1"), put("b", "2")])]);
    let before = machine.digest().hash;
    let request =
        plain(vec![put("a", "9"), delete("b"), put("c", "9"), put("a", "8"), cas("a", Some("1"), "7"), get("a")]);
    let not_applied = OperationResult::NotApplied;
    let compared = OperationResult::Compared { swapped: false, current: Some(b"8".to_vec()) };
    let expected = [vec![not_applied.clone(); 4], vec![compared], vec![not_applied]].concat();
    assert_eq!(results(one(&mut machine, request)), expected);
    assert_eq!(machine.digest().hash, before);
    assert_eq!((machine.get(b"a"), machine.get(b"b"), machine.get(b"c")), (Some(&b"1"[..]), Some(&b"2"[..]), None));
}

#[test]
fn results_that_do_not_fit_in_a_reply_refuse_the_whole_request() {
    let mut machine = machine(|limits| limits.answer_bytes_max = 10);
    apply(&mut machine, &[plain(vec![put("a", "123456")])]);
    let before = machine.digest().hash;
    let outcome = one(&mut machine, plain(vec![put("b", "x"), get("a"), get("a")]));
    assert!(matches!(outcome, Outcome::BadRequest { ref message } if message.contains("do not fit")), "{outcome:?}");
    assert_eq!(machine.digest().hash, before);
    let mut archive = Vec::new();
    plain(vec![get("a"), get("a")]).append_to(&mut archive);
    machine.read(wire::view_request(&archive).unwrap(), |outcome| {
        assert!(matches!(outcome, OutcomeRef::BadRequest { .. }), "{outcome:?}");
    });
}

#[test]
fn reads_answer_from_the_state_and_refuse_writes() {
    let mut machine = machine(|_| {});
    apply(&mut machine, &[plain(vec![put("a", "1"), put("b", "2")])]);
    let read = |operations: Vec<Operation>| {
        let mut archive = Vec::new();
        plain(operations).append_to(&mut archive);
        let mut answer = None;
        machine.read(wire::view_request(&archive).unwrap(), |outcome| answer = Some(format!("{outcome:?}")));
        answer.unwrap()
    };
    assert_eq!(read(vec![get("a")]), "Done([Value(Some([49]))])");
    assert_eq!(read(vec![get("b"), get("x")]), "Done([Value(Some([50])), Value(None)])");
    assert!(read(vec![put("a", "2")]).starts_with("BadRequest"));
    assert!(read(vec![get("a"), delete("a")]).starts_with("BadRequest"));
    assert!(read(vec![]).starts_with("BadRequest"));
}

#[test]
fn what_no_leader_should_have_let_in_is_refused_the_same_everywhere() {
    let mut machine = machine(|limits| limits.key_bytes_max = 4);
    let client = open(&mut machine);
    let open_session = || Operation::OpenSession { group: 3 };
    for request in [
        plain(vec![]),
        plain(vec![put("", "x")]),
        plain(vec![put("12345", "x")]),
        plain(vec![open_session(), put("a", "x")]),
        in_session(client, 1, 1, open_session()),
        in_session(client, 0, 0, put("a", "x")),
        in_session(client, 1, 2, put("a", "x")),
    ] {
        let outcome = one(&mut machine, request.clone());
        assert!(matches!(outcome, Outcome::BadRequest { .. }), "{request:?}: {outcome:?}");
    }
    assert_eq!(machine.key_count(), 0);
    assert_eq!(one(&mut machine, in_session(client + 1, 1, 1, put("a", "x"))), Outcome::SessionExpired);
}

#[test]
fn a_retry_takes_effect_once_and_gets_the_first_answer_at_the_first_place() {
    let mut machine = machine(|_| {});
    let client = open(&mut machine);
    let request = in_session(client, 1, 1, cas("k", None, "1"));
    let first = apply(&mut machine, std::slice::from_ref(&request));
    apply(&mut machine, &[plain(vec![delete("k")])]);
    let second = apply(&mut machine, &[plain(vec![put("z", "")]), request.clone(), request.clone()]);
    assert_eq!(first[0].position, Position { group: 3, index: 2, position: 0 });
    assert_eq!((&second[1], &second[2]), (&first[0], &first[0]));
    assert_eq!(machine.get(b"k"), None);
    assert!(matches!(one(&mut machine, in_session(client, 2, 2, put("k", "2"))), Outcome::Done(_)));
    assert_eq!(one(&mut machine, request), Outcome::TooStale);
    let ahead = in_session(client, 2 + 8192, 2, put("k", "3"));
    assert!(matches!(one(&mut machine, ahead), Outcome::Overloaded { .. }));
    assert_eq!(machine.get(b"k"), Some(&b"2"[..]));
}

#[test]
fn damaged_entries_are_errors_and_leave_last_applied() {
    let mut machine = machine(|_| {});
    let mut payload = payload_of(&[plain(vec![put("a", "1")])]);
    payload.truncate(payload.len() - 1);
    let error = machine.apply_entry(1, 1, &payload, |_, _| {}).unwrap_err();
    assert!(matches!(error, ApplyError::Payload(_)), "{error}");
    let error = machine.apply_entry(1, 1, &[3, 0, 0, 0, 1, 2, 3], |_, _| {}).unwrap_err();
    assert!(matches!(error, ApplyError::Request { position: 0, .. }), "{error}");
    assert_eq!(machine.last_applied(), 0);
}

#[test]
fn what_is_before_the_damage_is_applied_whatever_is_viewed_together() {
    for good in [0, 1, 15, 16, 17, 31, 32, 40] {
        let requests: Vec<_> = (0..good).map(|at| plain(vec![put(&format!("key {at}"), "value")])).collect();
        let mut payload = payload_of(&requests);
        payload::push_request(&mut payload, b"no request");
        payload.extend_from_slice(&payload_of(&[plain(vec![put("behind", "value")])]));
        let (mut machine, mut positions) = (machine(|_| {}), Vec::new());
        let error = machine.apply_entry(1, 1, &payload, |position, _| positions.push(position.position)).unwrap_err();
        assert!(matches!(error, ApplyError::Request { position, .. } if position == good), "{error}");
        assert_eq!(positions, (0..good).collect::<Vec<_>>());
        assert_eq!((machine.key_count(), machine.last_applied()), (good as usize, 0));
        assert_eq!(machine.get(b"behind"), None);
    }
}

#[test]
#[should_panic(expected = "one after the other")]
fn an_entry_cannot_be_skipped() {
    let _ = machine(|_| {}).apply_entry(2, 1, &[], |_, _| {});
}

/// A session's state in the model: every answer it ever gave.
#[derive(Default)]
struct ModelSession {
    acknowledged: u64,
    answers: BTreeMap<u64, Reply>,
}

/// What the state machine should be, without its means.
#[derive(Default)]
struct Model {
    /// Value and version.
    map: BTreeMap<Vec<u8>, (Vec<u8>, u64)>,
    sessions: BTreeMap<u64, ModelSession>,
}

impl Model {
    fn apply(&mut self, at: Position, request: &Request) -> Reply {
        if let [Operation::OpenSession { .. }] = request.operations[..] {
            let client = at.index << 16 | u64::from(at.position + 1);
            self.sessions.insert(client, ModelSession { acknowledged: 1, ..ModelSession::default() });
            return Reply { position: at, outcome: Outcome::Done(vec![OperationResult::Session { client }]), term: 0 };
        }
        if request.client == 0 {
            return Reply { position: at, outcome: Outcome::Done(self.execute(&request.operations, at)), term: 0 };
        }
        let Some(session) = self.sessions.get_mut(&request.client) else {
            return Reply { position: at, outcome: Outcome::SessionExpired, term: 0 };
        };
        session.acknowledged = session.acknowledged.max(request.acknowledged);
        if request.sequence < session.acknowledged {
            return Reply { position: at, outcome: Outcome::TooStale, term: 0 };
        }
        if let Some(answer) = session.answers.get(&request.sequence) {
            return answer.clone();
        }
        let reply = Reply { position: at, outcome: Outcome::Done(self.execute(&request.operations, at)), term: 0 };
        let session = self.sessions.get_mut(&request.client).unwrap();
        session.answers.insert(request.sequence, reply.clone());
        reply
    }

    fn execute(&mut self, operations: &[Operation], place: Position) -> Vec<OperationResult> {
        let (before, mut results) = (self.map.clone(), Vec::new());
        let version = place.index << 16 | u64::from(place.position);
        for (at, operation) in operations.iter().enumerate() {
            results.push(match operation.clone() {
                Operation::Put { key, value } => {
                    OperationResult::Put { replaced: self.map.insert(key, (value, version)).is_some() }
                }
                Operation::Get { key } => OperationResult::Value(self.map.get(&key).map(|(value, _)| value.clone())),
                Operation::Delete { key } => OperationResult::Deleted { existed: self.map.remove(&key).is_some() },
                Operation::CompareAndSet { key, expected, value } => {
                    let current = self.map.get(&key).map(|(value, _)| value.clone());
                    if current != expected {
                        self.map = before;
                        let mut results = vec![OperationResult::NotApplied; operations.len()];
                        results[at] = OperationResult::Compared { swapped: false, current };
                        return results;
                    }
                    self.map.insert(key, (value, version));
                    OperationResult::Compared { swapped: true, current: None }
                }
                Operation::CompareVersion { key, version: expected, value } => {
                    let found = self.map.get(&key).map_or(0, |(_, version)| *version);
                    if found != expected {
                        self.map = before;
                        let mut results = vec![OperationResult::NotApplied; operations.len()];
                        results[at] = OperationResult::ComparedVersion { swapped: false, version: found };
                        return results;
                    }
                    let now = value.as_ref().map_or(0, |_| version);
                    match value {
                        Some(value) => _ = self.map.insert(key, (value, version)),
                        None => _ = self.map.remove(&key),
                    }
                    OperationResult::ComparedVersion { swapped: true, version: now }
                }
                Operation::OpenSession { .. } | Operation::Range { .. } => unreachable!(),
            });
        }
        results
    }
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let key = prop::sample::select(vec!["a", "b", "c", "a long key that does not fit anywhere else"]);
    let value = prop::sample::select(vec!["", "1", "2", "a value that is somewhat longer than the others"]);
    // Versions that keys may have: those of the first entries.
    let version = prop_oneof![Just(0), (1..8_u64, 0..2_u64).prop_map(|(index, position)| index << 16 | position)];
    let parts = (0..5, key, value.clone(), prop::option::of(value), version);
    parts.prop_map(|(kind, key, value, expected, version)| match kind {
        0 => put(key, value),
        1 => get(key),
        2 => delete(key),
        3 => Operation::CompareVersion { key: key.into(), version, value: expected.map(Into::into) },
        _ => cas(key, expected, value),
    })
}

/// A step of a history: a request of one of three clients, new or again, or a new session.
#[derive(Clone, Debug)]
enum Step {
    Open { client: usize },
    New { client: usize, operations: Vec<Operation>, acknowledge: bool },
    Again { client: usize, back: usize },
    Plain { operations: Vec<Operation> },
}

fn any_step() -> impl Strategy<Value = Step> {
    step_of(any_operation)
}

fn step_of<S: Strategy<Value = Operation>>(operation: impl Fn() -> S) -> impl Strategy<Value = Step> {
    let operations = || prop::collection::vec(operation(), 1..4);
    prop_oneof![
        1 => (0..3_usize).prop_map(|client| Step::Open { client }),
        6 => (0..3_usize, operations(), any::<bool>())
            .prop_map(|(client, operations, acknowledge)| Step::New { client, operations, acknowledge }),
        4 => (0..3_usize, 0..6_usize).prop_map(|(client, back)| Step::Again { client, back }),
        2 => operations().prop_map(|operations| Step::Plain { operations }),
    ]
}

/// What three clients send, retries in any order included, packed into entries of up to `batch` requests.
struct Histories {
    clients: [(u64, Vec<Request>); 3],
}

impl Histories {
    fn request(&mut self, step: &Step) -> Option<Request> {
        match step {
            Step::Open { .. } => Some(plain(vec![Operation::OpenSession { group: 3 }])),
            Step::Plain { operations } => Some(plain(operations.clone())),
            Step::New { client, operations, acknowledge } => {
                let (id, sent) = &mut self.clients[*client];
                let sequence = sent.len() as u64 + 1;
                let acknowledged =
                    if *acknowledge { sequence } else { sent.last().map_or(0, |last| last.acknowledged) };
                let operations = operations.clone();
                let request = Request { client: *id, sequence, acknowledged, operations, ..Request::default() };
                sent.push(request.clone());
                Some(request)
            }
            Step::Again { client, back } => {
                let sent = &self.clients[*client].1;
                sent.len().checked_sub(back + 1).map(|at| sent[at].clone())
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn it_answers_like_the_model_with_retries_in_any_order(
        steps in prop::collection::vec(any_step(), 1..60), batch in 1..5_usize
    ) {
        let (mut machine, mut twin) = (machine(|_| {}), machine(|_| {}));
        let mut model = Model::default();
        let mut histories = Histories { clients: Default::default() };
        for chunk in steps.chunks(batch) {
            // A client knows its id only when the entry with the opening was applied.
            let sent: Vec<(&Step, Request)> =
                chunk.iter().filter_map(|step| histories.request(step).map(|request| (step, request))).collect();
            let requests: Vec<Request> = sent.iter().map(|(_, request)| request.clone()).collect();
            let index = machine.last_applied() + 1;
            let replies = apply(&mut machine, &requests);
            apply(&mut twin, &requests);
            prop_assert_eq!(machine.digest(), twin.digest());
            prop_assert_eq!(replies.len(), requests.len());
            for (position, (reply, (step, request))) in (0..).zip(replies.iter().zip(&sent)) {
                let at = Position { group: 3, index, position };
                prop_assert_eq!(reply, &model.apply(at, request));
                if let (Step::Open { client }, Outcome::Done(results)) = (step, &reply.outcome)
                    && let [OperationResult::Session { client: id }] = results[..]
                {
                    histories.clients[*client] = (id, Vec::new());
                }
            }
        }
        for (key, (value, _)) in &model.map {
            prop_assert_eq!(machine.get(key), Some(&value[..]));
        }
        prop_assert_eq!(machine.key_count(), model.map.len());
    }

    #[test]
    fn a_log_that_differs_in_effect_makes_another_digest(
        steps in prop::collection::vec(any_step(), 1..30), at in any::<prop::sample::Index>()
    ) {
        let mut histories = Histories { clients: Default::default() };
        let requests: Vec<Request> = steps.iter().filter_map(|step| histories.request(step)).collect();
        let (mut one, mut other) = (machine(|_| {}), machine(|_| {}));
        let place = at.index(requests.len() + 1);
        for (number, request) in requests.iter().enumerate() {
            apply(&mut one, std::slice::from_ref(request));
            let different = [request.clone(), plain(vec![put("only here", "x")])];
            apply(&mut other, if number == place { &different } else { &different[..1] });
        }
        prop_assert_eq!(one.digest() == other.digest(), place >= requests.len());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), flip in any::<prop::sample::Index>()) {
        let _ = machine(|_| {}).apply_entry(1, 1, &bytes, |_, _| {});
        let mut payload = payload_of(&[plain(vec![put("a", "1"), cas("a", Some("1"), "2")]), plain(vec![get("a")])]);
        let at = flip.index(payload.len());
        payload[at] ^= bytes.first().copied().unwrap_or(1);
        let _ = machine(|_| {}).apply_entry(1, 1, &payload, |_, _| {});
    }
}

#[test]
fn the_digest_of_a_fixed_log_is_golden() {
    let mut machine = machine(|_| {});
    let client = open(&mut machine);
    apply(&mut machine, &[in_session(client, 1, 1, put("key", "value")), in_session(client, 2, 1, get("key"))]);
    apply(&mut machine, &[plain(vec![put("a", "1"), delete("key")])]);
    // Replicas of different releases compare digests: a change is a new format version.
    assert_eq!(machine.digest(), StateDigest { index: 3, hash: 6_170_178_958_006_563_377 });
}
