//! An enhanced authentication that goes as the client says.

use crate::auth::{Exchange, Failure, Outcome, Principal, Reply};
use crate::mqtt::ReasonCode;

/// The first byte of what the client says decides: it is turned away, goes on, or is believed to be
/// who it says.
pub(super) struct Parley;

impl Parley {
    pub const METHOD: &'static str = "parley";
}

impl Exchange for Parley {
    fn step(self: Box<Self>, data: &[u8], reply: Reply) {
        reply(match data.first().map(|first| first % 4) {
            None | Some(0) => {
                Outcome::Failure(Failure::new(ReasonCode::NotAuthorized, "as the client asked for"))
            }
            Some(1) => Outcome::Continue { data: data.to_vec(), exchange: self },
            _ => {
                let name = String::from_utf8_lossy(&data[..1]);
                Outcome::success(data[1..].to_vec(), Principal::new(name, "parley"))
            }
        });
    }
}
