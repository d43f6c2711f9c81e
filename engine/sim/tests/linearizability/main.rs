//! The linearizability checker against histories whose truth is known.
//!
//! Off the data path.

mod brute;
mod crosscheck;
mod generate;
mod known;
mod properties;
mod script;
