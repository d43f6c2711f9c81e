//! Golden bytes of what nodes tell each other of themselves, and of what they wish.
//!
//! Off the data path.

use ringraft_net::frame;
use ringraft_net::wire::{self, Report, ReportedGroup, TransferWish};

use super::check;

#[test]
fn reports() {
    let group = ReportedGroup {
        group: 3,
        term: 4,
        epoch: 5,
        voters: vec![1, 2],
        outgoing: vec![3],
        learners: vec![],
        membership_index: 6,
        behind: vec![2],
        committed_term: 7,
        committed_index: 8,
    };
    let report = Report {
        node: 1,
        epoch: 5,
        release: String::from("0.1.0"),
        requests_per_second: 9,
        leader_priority: 100,
        groups: vec![group],
        topology: String::from("{}"),
        http_address: String::from("a:80"),
        grpc_address: String::from("long.example:8090"),
    };
    check(
        "report",
        r"
            52520110c100000000000000000000005ac713bf4f6d0f6c
            010000000000000002000000000000000300000000000000020000000000000003000000040000000000000005000000
            00000000ccffffff02000000d4ffffff01000000d4ffffff000000000600000000000000c4ffffff0100000007000000
            0000000008000000000000006c6f6e672e6578616d706c653a3830393001000000000000000500000000000000302e31
            2e30ffffff0900000000000000640000007fffffff010000007b7dffffffffffff613a3830ffffffff91000000b3ffff
            ff
        ",
        |out| _ = report.append_frame(out),
    );
    let head = |frame: &[u8]| frame[frame::HEADER_BYTES..].to_vec();
    let mut bytes = Vec::new();
    report.append_frame(&mut bytes);
    assert_eq!(wire::view_report(&head(&bytes)).unwrap(), report);
    let wish = TransferWish { group: 3, to: 4 };
    check("transfer wish", r"525201110c0000000000000000000000604bef598313f06f030000000400000000000000", |out| {
        _ = wish.append_frame(out);
    });
    bytes.clear();
    wish.append_frame(&mut bytes);
    assert_eq!(wire::view_transfer_wish(&head(&bytes)).unwrap(), wish);
    let groups = vec![ReportedGroup::default(); wire::REPORT_GROUPS_MAX + 1];
    bytes.clear();
    Report { groups, ..Report::default() }.append_frame(&mut bytes);
    assert!(wire::view_report(&head(&bytes)).is_err(), "a report is bounded");
    bytes.clear();
    Report { topology: "x".repeat((1 << 20) + 1), ..Report::default() }.append_frame(&mut bytes);
    assert!(wire::view_report(&head(&bytes)).is_err(), "and so is the topology in it");
    for (http, grpc) in [(262, 0), (0, 262)] {
        bytes.clear();
        let (http_address, grpc_address) = ("x".repeat(http), "x".repeat(grpc));
        Report { http_address, grpc_address, ..Report::default() }.append_frame(&mut bytes);
        assert!(wire::view_report(&head(&bytes)).is_err(), "and so are addresses");
    }
}
