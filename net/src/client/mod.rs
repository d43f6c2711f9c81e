//! The client of a cluster: a core without I/O.
//!
//! Off the data path of the server.
//! [`core`] decides where a request goes, when it is sent again and what its end is; hosts move bytes: the
//! load generator with its own loop.

pub mod core;
mod links;
mod requests;
mod session;

pub use self::core::{Action, ClientError, Completion, Core, Options, SubmitError};
pub use self::links::LinkId;
