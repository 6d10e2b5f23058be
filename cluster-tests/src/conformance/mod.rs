//! The standards' normative statements, each proven by cases that name it.
//!
//! A [`Case`] is a function against a [`Site`]: one version of the protocol, one transport, and
//! the two ends of a conversation on one node or on two. Every case runs at every site it has
//! statements for; `docs/conformance.md` is written from the cases, and a statement that binds a
//! server and that no case names is a failure.

mod case;
mod page;
mod site;
mod statements;

pub use case::{Case, Outcome, Suite, case};
pub use page::{coverage, page};
pub use site::{Ground, Grounds, PASSWORD, Site, USER};
pub use statements::{Binds, Standard, Statement};
