//! The load generator alone, for systems that already run: `cargo run --release --example load -- --target redis ...`.
//!
//! Off the data path. It starts nothing; `ringraft bench` does, and takes the same flags.

use clap::Parser;
use ringraft_bench::{BenchArgs, prepare_output, run};

/// Loads running systems and reports.
#[derive(Parser)]
struct Program {
    #[command(flatten)]
    bench: BenchArgs,
}

fn main() -> std::process::ExitCode {
    let args = Program::parse().bench;
    let ended =
        match args.output.as_deref().map_or(Ok(()), prepare_output).and_then(|()| run(&args, &[], &args.endpoints)) {
            Ok(ended) => ended,
            Err(error) => {
                eprintln!("error: {error}");
                return 2.into();
            }
        };
    let written = args.output.as_deref().map_or(Ok(()), |folder| ended.write(folder));
    let printed = ended.report.print(args.json);
    let errors = [written.err().map(|error| error.to_string()), printed.err().map(|error| error.to_string())];
    if let Some(error) = errors.into_iter().flatten().next() {
        eprintln!("error: {error}");
        return 2.into();
    }
    u8::from(!ended.report.ok()).into()
}
