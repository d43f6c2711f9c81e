//! The matrix of storage faults, a sample of it: every damage, some of the pairs.
//!
//! Off the data path.

use ringraft_sim::matrix::{Ending, Options, run};

#[test]
fn storage_faults_are_survived_or_stop_the_node() {
    let all = !cfg!(debug_assertions);
    let options = Options { pair_stride: if all { 1 } else { 151 }, threads: 2 };
    let report = run(&options).expect("the undamaged cluster works");
    println!("{report}");
    assert_eq!(report.violation_count, 0, "{report}");
    assert!(report.cluster_runs > 20, "{report}");
    for replicas in 1..=3 {
        let rows = || report.rows.iter().filter(|(row, _)| row.replicas == replicas);
        assert!(rows().map(|(_, counts)| counts.total()).sum::<u64>() > 1_000, "{report}");
        assert!(rows().map(|(_, counts)| counts.stopped + counts.serves).sum::<u64>() > 100, "{report}");
    }
    // One damage on each disk of an idle cluster loses nothing.
    let singles = report.rows.iter().filter(|(row, _)| row.ending == Ending::Idle && !row.damage.starts_with("pair"));
    assert_eq!(singles.map(|(_, counts)| counts.lost).sum::<u64>(), 0, "{report}");
}
