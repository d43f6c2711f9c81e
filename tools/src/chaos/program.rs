//! Programs of the system that chaos needs: run to their end, with what they said when they fail.
//!
//! Off the data path.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Runs a program with `input` on its standard input; what it said on standard output.
///
/// # Errors
/// When it cannot be run or fails; the error is what it said.
pub(super) fn run(name: &str, arguments: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new(found(name));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {name}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early says why on its standard error.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("cannot run {name}"))?;
    ensure!(
        output.status.success(),
        "{name} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `PATH` of a user, even one who has become root, need not hold the folders of the system's programs.
fn found(name: &str) -> std::path::PathBuf {
    let folders = ["/usr/sbin", "/sbin"];
    let found = folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_goes_in_and_output_or_the_reason_comes_out() {
        assert_eq!(run("cat", &[], "text").unwrap(), "text");
        let error = run("cat", &["/no/such/file"], "").unwrap_err().to_string();
        assert!(error.starts_with("cat /no/such/file: ") && error.contains("No such file"), "{error}");
        assert!(run("no-such-program", &[], "").unwrap_err().to_string().contains("no-such-program"));
    }
}
