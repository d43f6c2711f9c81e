//! The client core as driven by the generator.
#![allow(missing_docs, unreachable_pub, reason = "internal")]
pub mod core;
mod links;
mod requests;
mod session;
pub use self::core::{Action, ClientError, Core, Options};
pub use self::links::LinkId;
