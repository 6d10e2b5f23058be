//! What is fuzzed: one plain function per target, for `node/fuzz` (coverage-guided, by
//! `scripts/fuzz`) and for the replay of its corpus among the unit tests.
//!
//! A target takes any bytes and panics if the code it drives does, or breaks one of the promises
//! that are checked here.

mod client;
mod command;
mod decode;
mod packets;
mod parley;
mod peer_frame;
mod proxy_header;
#[cfg(test)]
mod replay;
mod session_stream;
mod snapshot;
mod source;
mod topic_filter;
mod websocket;

pub use command::command;
pub use decode::{decode_v5, decode_v31, decode_v311};
pub use peer_frame::peer_frame;
pub use proxy_header::proxy_header;
pub use session_stream::session_stream;
pub use snapshot::snapshot;
pub use topic_filter::topic_filter;
pub use websocket::websocket;

#[cfg(test)]
pub(crate) use packets::{decode_all, walk};
#[cfg(test)]
pub(crate) use topic_filter::naive_matches;
