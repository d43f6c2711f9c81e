//! Any bytes as the body of any message: an error, or a message all of which can be read and written again.
//!
//! Off the data path.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringraft_net::frame::HEADER_BYTES;
use ringraft_net::limits::Limits;
use ringraft_net::wire;

fn request(bytes: &[u8]) {
    let Ok(request) = wire::view_request(bytes) else { return };
    let class = wire::validate_request(request, &Limits::CLIENT);
    let group = wire::group_of_request(request, 7);
    let bytes_of_all: usize = request.operations().map(|operation| operation.payload_bytes()).sum();
    assert!(class.is_err() || request.operations().len() <= Limits::CLIENT.operations_max);
    assert!(group.is_err() || group.is_ok_and(|group| group < 7));
    let operations: Vec<_> = request.operations().collect();
    let mut again = Vec::new();
    let (client, sequence) = (request.client.to_native(), request.sequence.to_native());
    let (acknowledged, consistency) = (request.acknowledged.to_native(), request.consistency.to_native());
    wire::RequestRef { client, sequence, acknowledged, consistency, operations: &operations }.append_to(&mut again);
    let second = wire::view_request(&again).expect("what was read can be written");
    assert_eq!(second.operations().map(|operation| operation.payload_bytes()).sum::<usize>(), bytes_of_all);
    assert!(second.operations().eq(request.operations()));
}

fn reply(bytes: &[u8]) {
    let Ok(reply) = wire::view_reply(bytes) else { return };
    let owned = reply.to_owned_reply();
    let mut again = Vec::new();
    owned.append_to(&mut again);
    assert_eq!(wire::view_reply(&again).expect("what was read can be written").to_owned_reply(), owned);
}

fn heartbeats(bytes: &[u8]) {
    let Ok(view) = wire::view_heartbeats(bytes) else { return };
    let groups: Vec<_> = view.heartbeats().collect();
    assert!((1..=wire::HEARTBEATS_MAX).contains(&groups.len()));
    let mut again = Vec::new();
    wire::HeartbeatsRef { sent_us: view.sent_us.to_native(), groups: &groups }.append_frame(&mut again);
    let second = wire::view_heartbeats(&again[HEADER_BYTES..]).expect("what was read can be written");
    assert!(second.heartbeats().eq(groups));
}

fn heartbeat_answers(bytes: &[u8]) {
    let Ok(view) = wire::view_heartbeat_answers(bytes) else { return };
    let groups: Vec<_> = view.answers().collect();
    assert!((1..=wire::HEARTBEATS_MAX).contains(&groups.len()));
    let (sent_us, shield_us) = (view.sent_us.to_native(), view.shield_us.to_native());
    let mut again = Vec::new();
    wire::HeartbeatAnswersRef { sent_us, shield_us, groups: &groups }.append_frame(&mut again);
    let second = wire::view_heartbeat_answers(&again[HEADER_BYTES..]).expect("what was read can be written");
    assert!(second.answers().eq(groups));
}

fn watch_request(bytes: &[u8]) {
    let Ok(request) = wire::view_watch_request(bytes) else { return };
    assert!(request.prefix.len() <= Limits::CLIENT.key_bytes_max);
    let mut again = Vec::new();
    request.append_frame(&mut again, 1);
    assert_eq!(wire::view_watch_request(&again[HEADER_BYTES..]), Ok(request));
}

fn watch_event(bytes: &[u8]) {
    let Ok(event) = wire::view_watch_event(bytes) else { return };
    if let wire::WatchEvent::Changes { items: list, .. } = &event {
        items(list);
    }
    let mut again = Vec::new();
    event.as_event_ref().append_frame(&mut again, 1);
    assert_eq!(wire::view_watch_event(&again[HEADER_BYTES..]), Ok(event));
}

fn items(bytes: &[u8]) {
    let Ok(all) = wire::items::all_items(bytes) else { return };
    let mut again = Vec::new();
    all.iter().for_each(|item| wire::items::push(&mut again, item));
    assert_eq!(again, bytes, "a list has one form");
}

fuzz_target!(|data: &[u8]| {
    let Some((which, bytes)) = data.split_first() else { return };
    match which % 14 {
        0 => request(bytes),
        1 => reply(bytes),
        2 => {
            if let Ok(message) = wire::view_peer_message(bytes) {
                let mut again = Vec::new();
                message.append_to(&mut again);
                assert_eq!(wire::view_peer_message(&again), Ok(message));
            }
        }
        3 => drop(wire::view_digest(bytes)),
        4 => drop(wire::view_hello(bytes)),
        5 => drop(wire::view_welcome(bytes)),
        6 => drop(wire::view_refused(bytes)),
        7 => drop(wire::view_admin_request(bytes)),
        8 => heartbeats(bytes),
        9 => heartbeat_answers(bytes),
        10 => watch_request(bytes),
        11 => watch_event(bytes),
        12 => items(bytes),
        _ => drop(wire::view_admin_reply(bytes)),
    }
});
