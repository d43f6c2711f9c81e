//! The load generator alone, for systems that already run: `cargo run --release --example load -- --target redis ...`.
//!
//! Off the data path. It starts nothing; `ringraft bench` does, and takes the same flags.

use clap::Parser;
use ringraft_bench::{BenchArgs, run};

/// Loads running systems and reports.
#[derive(Parser)]
struct Program {
    #[command(flatten)]
    bench: BenchArgs,
}

fn main() -> std::process::ExitCode {
    let args = Program::parse().bench;
    let report = match run(&args, &[], &args.endpoints) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("error: {error}");
            return 2.into();
        }
    };
    if let Err(error) = report.print(args.json) {
        eprintln!("error: {error}");
        return 2.into();
    }
    u8::from(!report.ok()).into()
}
