//! Standard output and standard error as every command writes to them: this crate's `print!`, `println!`, `eprintln!`.
//!
//! Off the data path.
//! Invariants: when the reader of standard output went away (`| head -1`), the command ends quietly, and what it holds
//! is put in order as after any other end; a standard error that nobody reads changes nothing.
//! What it does not do: give SIGPIPE its default action. It would end a process on the spot, local nodes left behind.

use std::any::Any;
use std::io::{self, ErrorKind, StdoutLock, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::thread;

/// The exit code when the reader of standard output went away: as shells tell of SIGPIPE, 128 + 13.
pub const READER_GONE: u8 = 141;
/// The exit code when standard output cannot be written for another reason.
const UNWRITABLE: u8 = 1;

/// What unwinds the stack when standard output cannot be written: the exit code.
struct End(u8);

/// `std::print`, but a closed pipe ends the command quietly.
#[macro_export]
macro_rules! print {
    ($($text:tt)*) => { $crate::output::to_standard_output(format_args!($($text)*)) };
}

/// `std::println`, but a closed pipe ends the command quietly.
#[macro_export]
macro_rules! println {
    ($($text:tt)*) => { $crate::output::to_standard_output(format_args!("{}\n", format_args!($($text)*))) };
}

/// `std::eprintln`, but a closed pipe is no matter.
#[macro_export]
macro_rules! eprintln {
    ($($text:tt)*) => { $crate::output::to_standard_error(format_args!($($text)*)) };
}

/// Standard output for whoever wants a [`Write`]; writing to it never fails, see [`checked`].
pub struct StandardOutput(StdoutLock<'static>);

/// Locks standard output.
#[must_use]
pub fn standard() -> StandardOutput {
    StandardOutput(io::stdout().lock())
}

impl Write for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                checked(Err(error));
                Ok(bytes.len())
            }
            result => result,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        checked(self.0.flush());
        Ok(())
    }
}

/// Ends the command if this write to standard output failed: quietly if nobody reads it any more.
///
/// It ends by unwinding, so that temporary clusters stop and terminals are restored; [`ending`] gives the exit code.
pub fn checked(written: io::Result<()>) {
    let Err(error) = written else { return };
    if thread::panicking() {
        // It ends already; this is something being put in order.
        return;
    }
    if error.kind() == ErrorKind::BrokenPipe {
        resume_unwind(Box::new(End(READER_GONE)));
    }
    eprintln!("ringraft: cannot write to standard output: {error}");
    resume_unwind(Box::new(End(UNWRITABLE)));
}

/// Runs a command to its end, also when that end is [`checked`]'s.
pub fn ending(command: impl FnOnce() -> ExitCode) -> ExitCode {
    catch_unwind(AssertUnwindSafe(command)).unwrap_or_else(|panic: Box<dyn Any + Send>| match panic.downcast::<End>() {
        Ok(end) => ExitCode::from(end.0),
        Err(panic) => resume_unwind(panic),
    })
}

#[doc(hidden)]
pub fn to_standard_output(text: std::fmt::Arguments<'_>) {
    checked(io::stdout().lock().write_fmt(text));
}

#[doc(hidden)]
pub fn to_standard_error(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_written_ends_a_command() {
        let code = |result: io::Result<()>| {
            format!(
                "{:?}",
                ending(move || {
                    checked(result);
                    ExitCode::from(7)
                })
            )
        };
        let expected = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(code(Ok(())), expected(7));
        assert_eq!(code(Err(ErrorKind::BrokenPipe.into())), expected(READER_GONE));
        assert_eq!(code(Err(ErrorKind::StorageFull.into())), expected(UNWRITABLE));
    }

    #[test]
    fn a_panic_stays_a_panic() {
        let panic = catch_unwind(|| ending(|| resume_unwind(Box::new("a bug"))));
        assert_eq!(panic.expect_err("it goes on").downcast_ref::<&str>(), Some(&"a bug"));
    }

    #[test]
    fn what_is_put_in_order_may_print() {
        struct Prints;
        impl Drop for Prints {
            fn drop(&mut self) {
                checked(Err(ErrorKind::BrokenPipe.into()));
            }
        }
        let code = ending(|| {
            let _prints = Prints;
            checked(Err(ErrorKind::BrokenPipe.into()));
            ExitCode::SUCCESS
        });
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(READER_GONE)));
    }
}
