//! The binary `ringraft`.
fn main() {}
